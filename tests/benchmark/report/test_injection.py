"""Commands of terminals, formulas of spreadsheets, links and commands of TeX in every field of a
record: none of them is alive in anything that a report writes."""

from __future__ import annotations

import csv as csv_
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.cli.safe_console import SafeConsole
from adbench.benchmark.leaderboard.records import read_records
from adbench.benchmark.report.latex import escape_latex
from adbench.benchmark.scheduling.console import ConsoleReporter
from records import missing, record
from reports import cost_csv, csv, latex, markdown, print_leaderboards

TEXTS = {
    "CSI": "\x1b[2J\x1b[31mred",
    "OSC 0": "\x1b]0;title\x07",
    "OSC 8": "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
    "DCS": "\x1bPq#0\x1b\\",
    "C1": "\x9b31m\x90q\x9c\x85",
    "cursor": "a\rb\x08\x7f",
    "direction": "a\u202eb\u2066c\u200b",
    "formula": "=HYPERLINK(1)",
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-2+3",
    "at": "@SUM(1)",
    "tab": "\t=1",
    "line": "\n=1\r\n=2",
    "image": "![i](http://evil/x.png)",
    "link": "[a](javascript:alert(1))",
    "reference": "[a][b]",
    "definition": "[b]: javascript:alert(1)",
    "element": "<img src=x onerror=alert(1)><script>",
    "autolink": "<javascript:alert(1)>",
    "TeX": r"\input{/etc/passwd}\write18{x}$#&~^_%}",
    "comment": "a\u2028b\x0cc\x1cd %",
    "rich": "[bold][/red]",
}


def hostile(text: str) -> list[dict[str, Any]]:
    """Records with the text in every field that is text."""
    args = {f"k{text}": text, "deep": {text: [text]}}
    changes = {
        "method__label": text,
        "method__name": text,
        "method__supervision": text,
        "method__paper": text,
        "method__args": args,
        "dataset__name": text,
        "dataset__args": args,
        "dataset__fingerprint": text,
        "profile": text,
        "protocol__id": text,
        "protocol__text": text,
        "level__rule": text,
        "threshold__rule": text,
        "device": text,
        "keys": {text: text},
        "versions": {text: text},
    }
    whole = record("A", **changes, strata={text: {"n": 3, "pixel_ap": 0.5}})
    whole["metrics"][text] = {"value": 0.5}
    half = {"n": 9, "n_abnormal": 3, "n_groups": 9, "metrics": {"pixel_ap": {"value": 0.5}}}
    gap = {"higher": text, "lower": text, "value": 0.1, "pairs": 1}
    whole["metadata"] = {text: {"subgroups": {text: half}, "gaps": {"pixel_ap": gap}}}
    del changes["dataset__fingerprint"]
    failed = missing("A", reason=text, **changes)
    return [whole, whole | {"seed": 1}, failed, missing("B", reason=text)]


@pytest.fixture(params=TEXTS.values(), ids=list(TEXTS))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "records").mkdir()
    for k, each in enumerate(hostile(request.param)):
        (tmp_path / "records" / f"{k}.json").write_text(json.dumps(each))
    (tmp_path / "records" / "broken.json").write_text(json.dumps({request.param: request.param}))
    return tmp_path


def is_plain(text: str) -> bool:
    return all(char == "\n" or char.isprintable() for char in text)


def test_a_terminal_gets_no_command(folder: Path) -> None:
    out = io.StringIO()
    print_leaderboards(read_records(folder / "records"), Console(file=out, width=150))
    assert is_plain(out.getvalue())
    for words in (
        ["status"],
        ["compare", "A", "B"],
        ["compare", "x\x1b[2J", "y"],
        ["reproduce", "x\x1b[2J"],
    ):
        result = CliRunner().invoke(app, [*words, "--out", str(folder)])
        assert is_plain(result.output)


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_a_console_and_lines_of_a_run_get_none_either(text: str) -> None:
    for console in (SafeConsole(file=io.StringIO(), width=90), Console(file=io.StringIO())):
        ConsoleReporter(console).print_failure(text, text)
        assert is_plain(console.file.getvalue())  # pyright: ignore[reportAttributeAccessIssue]


def test_a_spreadsheet_gets_no_formula(folder: Path) -> None:
    records = read_records(folder / "records")
    for text in (csv(records), cost_csv(records)):
        rows = list(csv_.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) == 1 and len(rows) > 2
        for cell in (cell for row in rows for cell in row):
            assert is_plain(cell) and "\n" not in cell
            assert not re.match(r"[=+@\t\r]|-.", cell) or re.fullmatch(r"-\d+(\.\d+)?", cell)


def test_markdown_has_no_image_link_or_element(folder: Path) -> None:
    text = markdown(read_records(folder / "records"))
    assert is_plain(text)
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert not set(re.findall(r"<(\w+)", html)) & {"img", "a", "script", "code", "pre"}
    lines = [line for line in text.splitlines() if line.startswith("|")]
    bars = {line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines[:4]}
    assert len(bars) == 1


def test_latex_has_no_command_but_its_own(folder: Path) -> None:
    text = latex(read_records(folder / "records"))
    body = "\n".join(line for line in text.splitlines() if not line.startswith("% "))
    commands = set(re.findall(r"\\([a-zA-Z]+)", body))
    assert is_plain(text) and not commands & {"input", "write", "red"}
    outside = re.sub(r"\\[&%$#_{}]", "", body)
    assert "%" not in outside.replace("{%\n", "{\n") and "#" not in outside


def test_latex_escapes_a_level_too() -> None:
    changed = record("A")
    changed["level"]["chosen"] = r"\input{x}"
    assert r"\input" not in latex([changed]) and escape_latex(r"\input{x}") in latex([changed])
