"""A disk with room for some bytes more: a command is one line then, and leaves only whole files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("full disk")  # what all need is made once

SIZES = (0, 150, 5_000)
"""Bytes that a file may have."""

EXPORT = "export-maps RECORD --to TO --store store --data data --format"

COMMANDS = {
    **{f"export-maps {kind}": [*EXPORT.split(), kind] for kind in ("npy", "tiff", "png", "hdf5")},
    "publish": ["publish", "out", "--to", "TO"],
    "predict": ["predict", "RECORD", "--data", "new", "--to", "TO", "--store", "store"],
}

AT_EVERY_SIZE = """
import json, os, resource, sys
import numpy as np
from pathlib import Path
from PIL import Image
import adbench
from adbench.benchmark.cli.main import app

commands, sizes = json.loads(sys.argv[1]), json.loads(sys.argv[2])
names = [f"data/train/good/{k}.png" for k in range(6)]
names += ["data/test/good/6.png", "data/test/spot/7.png", "new/8.png", "new/9.png"]
rng = np.random.default_rng(0)
for name in names:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 100, (16, 16), np.uint8)).save(name)
settings = {"folder": {"size": 16, "channels": 1, "fractions": [0.1, 0.9, 0, 0]}}
results = adbench.run("intensity", "folder", data="data", out="out", store="store", profile="check",
                      settings=settings, baselines=False, executor="inline", progress=False)
record = str(results.paths()[0])

def run(words):
    try:
        app(words)
    except SystemExit as end:
        return end.code or 0

def at(size, words):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        code = run(words)
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as errors:
        lines = errors.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines

for name, command in commands.items():
    for size in (None, *sizes):  # without a limit first, here, which imports all for the children
        target = f"{name}-{size}"
        words = [{"RECORD": record, "TO": target}.get(word, word) for word in command]
        code, lines = (run(words), []) if size is None else at(size, words)
        row = {"command": name, "size": size, "code": code, "lines": lines}
        print("\\n" + json.dumps(row), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("full")
    command = [sys.executable, "-c", AT_EVERY_SIZE, json.dumps(COMMANDS), json.dumps(SIZES)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # children of a process with threads may hang
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == len(COMMANDS) * (1 + len(SIZES))
    return folder, rows


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    outcomes: tuple[Path, list[dict[str, Any]]], name: str
) -> None:
    folder, rows = outcomes
    whole = {
        path.relative_to(folder / f"{name}-None"): path.stat().st_size
        for path in (folder / f"{name}-None").rglob("*")
    }
    refusals = 0
    for row in (row for row in rows if row["command"] == name):
        errors = [line for line in row["lines"] if line.startswith("error: ")]
        if row["size"] is None:
            assert row["code"] == 0 and not errors, row
            continue
        target = folder / f"{name}-{row['size']}"
        written = {path.relative_to(target): path for path in target.rglob("*") if path.is_file()}
        for path, file in written.items():
            # the journal grows by lines, of which one that is cut off does not count
            assert path.name == "files.jsonl" or file.stat().st_size == whole[path], (row, path)
        if row["code"]:
            refusals += 1
            assert row["code"] == 2 and len(errors) == 1 and "cannot write" in errors[0], row
            assert "File too large" in errors[0] and "another folder" in errors[0], row
        if name == "publish" and row["code"]:
            assert not target.exists() and not list(folder.glob(f".{target.name}*"))
    assert refusals
