"""The example command lines in all help texts: they parse, with real names and values, and run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.cli.run_options import OPTIONS
from adbench.benchmark.experiments.matrix import resolve_overrides
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.registry.registry import Registry

ROOT: Any = typer.main.get_command(app)
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


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command of a command line, and the values of its parameters; raises click's errors."""
    command, context, names = ROOT, click.Context(ROOT, info_name="adbench"), list[str]()
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        names.append(name)
        context = type(context)(command, parent=context, info_name=name)
    return " ".join(names), command.make_context(names[-1], list(words)).params


def check_names(command: str, values: dict[str, Any]) -> None:
    """Raise the error of the command where a name or the text of a shared option is invalid."""
    shared = command.startswith("data ") or command in ("run", "plan", "speed", "check")
    options = {key: value for key, value in values.items() if shared and key in OPTIONS and value}
    config = RunConfig.from_options(**options)
    methods = [*config.methods, *(values.get("names") or [])]
    methods += [values["method"]] if "method" in values else []
    methods += [values["a"], values["b"]] if command == "compare" else []
    datasets = [*config.datasets] if "datasets" in options else []
    datasets += [values["dataset"]] if values.get("dataset") else []
    if command.startswith("data "):
        datasets.append(values["name"])
    if command == "info":
        REGISTRY.entry(values["name"])
    for name in methods:
        if not name.startswith("hub:"):  # which is fetched
            REGISTRY.method(name)
    for name in datasets:
        REGISTRY.dataset(name)
    if config.profile is not None:
        REGISTRY.profile(config.profile)
    if config.suite:
        REGISTRY.suite(config.suite)
    if config.settings:
        resolve_overrides(config.settings, methods, datasets, REGISTRY)


@pytest.mark.parametrize(("name", "command"), [*commands()])
def test_every_help_text_has_examples_that_parse(name: str, command: Any) -> None:
    lines = examples(command)
    assert lines, f"adbench {name} --help has no line `Example: adbench {name} …`"
    parsed = [parse(words) for words in lines]
    assert not name or name in [command_name for command_name, _ in parsed]
    for command_name, values in parsed:
        check_names(command_name, values)


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
