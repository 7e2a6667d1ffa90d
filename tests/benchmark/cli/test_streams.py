"""The command line on terminals of any encoding, and where nobody reads what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from records import some

COMMAND = [sys.executable, "-m", "adbench"]
FILES = {f"leaderboard.{kind}" for kind in ("md", "csv", "json", "tex")} | {"index.html"}


def results(folder: Path) -> Path:
    (folder / "records").mkdir()
    for k, each in enumerate(some()):
        (folder / "records" / f"{k}.json").write_text(json.dumps(each))
    return folder


def shell(line: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "150"}
    line = line.replace("adbench", " ".join(COMMAND), 1)
    return subprocess.run(["bash", "-c", line], capture_output=True, env=environment)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("words", ["run --help", "list methods"])
def test_help_and_lists_survive_any_encoding(encoding: str, words: str) -> None:
    process = shell(f"adbench {words}", encoding)
    assert process.returncode == 0 and not process.stderr
    assert b"anoddpm" in process.stdout or b"Usage" in process.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_report_survives_any_encoding_and_writes_its_files(tmp_path: Path, encoding: str) -> None:
    process = shell(f"adbench report --out {results(tmp_path)}", encoding)
    assert process.returncode == 0 and not process.stderr
    text = process.stdout.decode(encoding)
    assert "AnoDDPM" in text and "?Dice?" in text and "autoDDPM" in text
    assert {path.name for path in tmp_path.iterdir()} >= FILES


@pytest.mark.parametrize(
    "reader", ["| head -1; exit ${PIPESTATUS[0]}", ">&-", "| true", ">&- 2>&-"]
)
def test_a_report_writes_its_files_though_nobody_reads_it(tmp_path: Path, reader: str) -> None:
    process = shell(f"adbench report --out {results(tmp_path)} {reader}")
    assert process.returncode == 0 and not process.stderr
    assert {path.name for path in tmp_path.iterdir()} >= FILES


def test_output_that_is_lost_on_a_full_disk_is_an_error_and_the_work_is_done(
    tmp_path: Path,
) -> None:
    process = shell(f"adbench report --out {results(tmp_path)} > /dev/full")
    assert process.returncode == 2
    (line,) = process.stderr.decode().splitlines()
    assert line.startswith("error: the output cannot be written: ") and "No space left" in line
    assert {path.name for path in tmp_path.iterdir()} >= FILES


def test_a_report_that_cannot_be_written_is_shown_and_is_an_error(tmp_path: Path) -> None:
    folder = results(tmp_path)
    (folder / "leaderboard.md").mkdir()
    process = shell(f"adbench report --out {folder}")
    assert process.returncode == 2 and b"AnoDDPM" in process.stdout
    assert process.stderr.startswith(b"error: ") and process.stderr.count(b"\n") == 1
