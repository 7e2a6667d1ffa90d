"""The example command lines in all help texts: they parse, with real names and values, and run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.registry.registry import Registry

from ...support.command_lines import ROOT, check_names, parse

REGISTRY = Registry.read()

QUICK = (
    *("list", "info", "doctor", "check", "new method", "report", "compare"),
    *(f"cache {verb}" for verb in ("ls", "why", "verify", "gc", "export", "import")),
)
"""Commands whose examples take a second at most, on results of `pca` and `template-z`."""

RUN = "run -m pca,template-z -d phantom --profile tiny --set phantom.shape=[16,16] --limit 8 \
--seeds 0,1 --no-baselines --device cpu --executor inline"


def commands(command: Any = ROOT, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its name, such as "cache ls"; the root, with none, is one too."""
    inner = getattr(command, "commands", {})
    if not inner or not name:
        yield name, command
    for key, each in inner.items():
        yield from commands(each, f"{name} {key}".strip())


def examples(command: Any) -> list[list[str]]:
    """The words after `adbench` of each command line behind "Example:" in a help text."""
    text = f"{command.help}\n\n{command.epilog or ''}"
    lines = [
        line.strip()
        for paragraph in re.split(r"\n\s*\n", text)
        for line in re.sub(r"^Examples?:", "", " ".join(paragraph.split())).split(";")
    ]
    return [
        shlex.split(re.split(r" > | \(", line)[0])[1:]
        for line in lines
        if line.startswith("adbench ")
    ]


@pytest.mark.parametrize(("name", "command"), [*commands()])
def test_every_help_text_has_examples_that_parse(name: str, command: Any) -> None:
    lines = examples(command)
    assert lines, f"adbench {name} --help has no line `Example: adbench {name} …`"
    parsed = [parse(words) for words in lines]
    assert not name or name in [command_name for command_name, _ in parsed]
    for command_name, values in parsed:
        check_names(command_name, values, REGISTRY)


def test_the_examples_that_are_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADBENCH_STORE", str(tmp_path / "store"))

    def run(words: list[str]) -> None:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.output)

    run(shlex.split(RUN))
    by_name = dict(commands())
    for name in QUICK:
        for words in examples(by_name[name]):
            run(words)
