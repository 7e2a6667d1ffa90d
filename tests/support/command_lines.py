"""Command lines of adbench in texts: parsed, with real names and values."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import click
import typer

from adbench.benchmark.cli.main import app
from adbench.benchmark.cli.run_options import OPTIONS
from adbench.benchmark.evaluation.named_protocols import parse_protocols
from adbench.benchmark.experiments.matrix import resolve_overrides
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.registry.registry import Registry

ROOT: Any = typer.main.get_command(app)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of code in a Markdown page: its language, its text, and the line where it begins."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text("utf-8")
    return [
        Block(match[1], match[2], text[: match.start()].count("\n") + 1)
        for match in FENCE.finditer(text)
    ]


def command_lines(text: str) -> list[list[str]]:
    """The words after `adbench` of every line that begins with it; comments are left out."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]
    commands = [words[1:] for words in lines if words and words[0] == "adbench"]
    return [command for command in commands if command != ["--help"]]


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command of a command line, and the values of its parameters; raises click's errors."""
    command, context, names = ROOT, click.Context(ROOT, info_name="adbench"), list[str]()
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        names.append(name)
        context = type(context)(command, parent=context, info_name=name)
    return " ".join(names), command.make_context(names[-1], list(words)).params


def check_names(command: str, values: dict[str, Any], registry: Registry) -> None:
    """Raise the error of the command where a name or the text of a shared option is invalid."""
    shared = command.startswith("data ") or command in ("run", "plan", "speed", "check")
    options = {key: value for key, value in values.items() if shared and key in OPTIONS and value}
    for protocol in parse_protocols(options.pop("protocol", "")):  # run takes several
        protocol.describe()
    config = RunConfig.from_options(**options)
    methods = [*config.methods, *(values.get("names") or [])]
    methods += [values["method"]] if "method" in values else []
    methods += [values["a"], values["b"]] if command == "compare" else []
    datasets = [*config.datasets] if "datasets" in options else []
    datasets += [values["dataset"]] if values.get("dataset") else []
    if command.startswith("data "):
        datasets.append(values["name"])
    if command == "info":
        registry.entry(values["name"])
    for name in methods:
        if not name.startswith("hub:"):  # which is fetched
            registry.method(name)
    for name in datasets:
        registry.dataset(name)
    if config.profile is not None:
        registry.profile(config.profile)
    if config.suite:
        registry.suite(config.suite)
    if config.settings:
        resolve_overrides(config.settings, methods, datasets, registry)
