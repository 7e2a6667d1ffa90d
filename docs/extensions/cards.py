"""Write the pages that are made from the program itself, before Sphinx reads the others.

One card for every method and dataset, from `registry.yaml`, its docstrings, `published.yaml`,
`agreement.yaml` and the leaderboards in `results/boards`, whose pages are copied beside; a page of
the API for `import adbench` and for every package of the engine. They lie in
`docs/generated`, which git does not hold.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from docstrings import to_restructured_text

import adbench
from adbench.benchmark.leaderboard.leaderboard import Leaderboard
from adbench.benchmark.leaderboard.metric_names import METRIC_NAMES
from adbench.benchmark.leaderboard.reproduction import read_published
from adbench.benchmark.leaderboard.seed_groups import SeedGroup
from adbench.benchmark.leaderboard.text import interval_text, number_text
from adbench.benchmark.registry.registry import Entry, Registry

HERE = Path(__file__).parents[1]
GENERATED = HERE / "generated"
BOARDS = HERE.parent / "results" / "boards"
ENGINE = ("diffusion", "noise", "sampling", "networks", "codecs", "features", "training",
          "transforms", "runtime", "checkpoints", "profiling")  # fmt: skip


def write_pages(folder: Path = GENERATED) -> None:
    """Write all generated pages into the folder; what was in it goes."""
    shutil.rmtree(folder, ignore_errors=True)
    names = Registry.read()
    for kind, entries in (("methods", names.methods), ("datasets", names.datasets)):
        for name, entry in entries.items():
            _write(folder / kind / f"{_file_name(name)}.md", card(entry))
        _write(folder / kind / "index.md", _index(kind, entries))
    _write(folder / "api" / "adbench.md", _public_api())
    for package in ENGINE:
        _write(folder / "api" / f"engine.{package}.md", _package_page(f"engine.{package}"))
    _write(folder / "api" / "index.md", _api_index())


def card(entry: Entry) -> str:
    """The card of a method or dataset, as Markdown."""
    facts = adbench.describe(entry.name)
    sections = [f"# {entry.label}", _code(facts["about"]), _facts(facts)]
    sections += ["## In full", _docstring(facts["in full"]), "## Arguments", _arguments(facts)]
    if entry.package == "methods":
        sections += ["## Agreement with the authors' code", _agreement(entry.name)]
        sections += ["## Published numbers", _published(entry.name)]
        sections += ["## On our boards", _on_boards(entry.name)]
    else:
        sections += ["## Our boards", _boards_of(entry.name)]
    return "\n\n".join(part for part in sections if part)


def _facts(facts: dict[str, Any]) -> str:
    hidden = {"about", "arguments", "allowed", "in full", "published numbers", "search space"}
    rows = [(key, value) for key, value in facts.items() if key not in hidden]
    return _table(("", ""), [(key, _cell(value)) for key, value in rows])


def _arguments(facts: dict[str, Any]) -> str:
    searched = facts.get("search space", {})
    rows = [
        (f"`{name}`", f"`{value}`", _cell(facts["allowed"][name]), _cell(searched.get(name, "")))
        for name, value in facts["arguments"].items()
    ]
    return _table(("argument", "default", "takes", "`adbench tune` tries"), rows)


def _published(name: str) -> str:
    """Every published row of the method, with its source and who measured it."""
    parts = []
    for paper in read_published().values():
        for key, table in paper.get("tables", {}).items():
            rows = [row for row in table.get("rows", ()) if row.get("method") == name]
            if rows:
                source = f"{paper['label']}, {key}: {table['kind']}. {table['source']}"
                header = ("dataset", *map(_code, table["metrics"]))
                parts += [_code(source), _table(header, [_published_row(row) for row in rows])]
    return "\n\n".join(parts) or "None that could be checked in a file of the authors."


def _published_row(row: dict[str, Any]) -> tuple[str, ...]:
    values = ["" if value is None else str(value) for value in row["values"]]
    arguments = " ".join(f"{key}={value}" for key, value in row.get("args", {}).items())
    return (_code(f"{row.get('dataset', '')} {arguments}".strip()), *values)


def _agreement(name: str) -> str:
    """The largest differences from the authors' code, part by part, with how they were measured."""
    text = (HERE / "agreement.yaml").read_text(encoding="utf-8")
    parts = yaml.safe_load(text).get(name.removesuffix("-authors"))
    if parts is None:
        return "Not measured: written from the paper, and not run beside the authors' code."
    heading = text.partition("\n\n")[0].replace("# ", "").replace("\n", " ")
    rows = [(_code(part), _code(str(difference))) for part, difference in parts.items()]
    return heading + "\n\n" + _table(("part", "largest difference"), rows)


@cache
def _leaderboards() -> list[tuple[str, Leaderboard]]:
    """The leaderboards that come with adbench, each with a link to it on its page."""
    return [
        (
            f'<a href="../../boards/{folder.name}/index.html#leaderboard-{number}">{folder.name}: '
            f"{leaderboard.title}</a>",
            leaderboard,
        )
        for folder in sorted(records.parent for records in BOARDS.glob("*/records"))
        for number, leaderboard in enumerate(adbench.load_results(folder).leaderboards())
    ]


def _on_boards(name: str) -> str:
    """Value, interval and rank of a method on every leaderboard that it is on."""
    rows = []
    for link, leaderboard in _leaderboards():
        metric = leaderboard.metric
        ranked = [method for method in leaderboard.methods if method.value(metric) is not None]
        for rank, method in enumerate(ranked, 1):
            if method.entries[0].record["method"]["name"] == name:
                rows.append((link, *_board_row(method, leaderboard), f"{rank} of {len(ranked)}"))
    header = ("leaderboard, profile tiny", "entry", "metric", "value, 95 %", "seeds", "rank")
    return _table(header, rows) if rows else "On none of the boards that come with adbench."


def _board_row(method: SeedGroup, leaderboard: Leaderboard) -> tuple[str, ...]:
    metric = leaderboard.metric
    interval = interval_text(*(method.interval(metric) or (None, None)))
    value = f"{number_text(method.value(metric))} {interval}".strip()
    return _code(method.name), METRIC_NAMES[metric], _code(value), str(len(method.entries))


def _boards_of(name: str) -> str:
    """Links to the leaderboards of a dataset."""
    links = [
        f"- {link}, {len(leaderboard.methods)} methods"
        for link, leaderboard in _leaderboards()
        if leaderboard.entries[0].record["dataset"]["name"].partition("/")[0] == name
    ]
    return "\n".join(links) or "None comes with adbench."


def _copy_boards(folder: Path) -> None:
    """Copy the pages of all boards below the folder of the built documentation."""
    for page in BOARDS.glob("*/index.html"):
        target = folder / "boards" / page.parent.name / page.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)


def _index(kind: str, entries: dict[str, Entry]) -> str:
    rows = [(f"[{name}]({_file_name(name)}.md)", entry.label, _cell(entry.about))
            for name, entry in entries.items()]  # fmt: skip
    title = "Method cards" if kind == "methods" else "Dataset cards"
    pages = "\n".join(map(_file_name, entries))
    return (
        f"# {title}\n\n{_table(('name', 'label', 'what it does'), rows)}\n\n"
        f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{pages}\n```\n"
    )


def _public_api() -> str:
    names = [name for name in adbench.__all__ if not name.startswith("__")]
    parts = [_auto(getattr(adbench, name), f"adbench.{name}") for name in names]
    return "# import adbench\n\n" + "\n\n".join(parts)


def _package_page(package: str) -> str:
    module = import_module(f"adbench.{package}")
    folder = Path(module.__path__[0])
    parts = [f"# adbench.{package}", _docstring(inspect.getdoc(module) or "")]
    for path in sorted(folder.glob("[!_]*.py")):
        name = f"adbench.{package}.{path.stem}"
        parts += [f"## {path.stem}", _directive("automodule", name, (":members:",))]
    return "\n\n".join(parts)


def _auto(value: Any, name: str) -> str:
    kind = "autoclass" if inspect.isclass(value) else "autofunction"
    return _directive(kind, name, (":members:",) if kind == "autoclass" else ())


def _api_index() -> str:
    pages = ["adbench", *(f"engine.{package}" for package in ENGINE)]
    listed = "\n".join(pages)
    return (
        "# API reference\n\nMade from the docstrings. The command line is a client of "
        "`import adbench`; methods are written with the engine.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )


def _directive(name: str, argument: str, options: Iterable[str]) -> str:
    lines = [f".. {name}:: {argument}", *(f"   {option}" for option in options)]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


def _docstring(text: str) -> str:
    return "```{eval-rst}\n" + to_restructured_text(text) + "\n```"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _cell(value: Any) -> str:
    text = str(value).strip()
    if "\n" in text or "<" in text:
        return "<br>".join(f"`{line.strip()}`" for line in text.split("\n")).replace("|", "\\|")
    return f"<{text}>" if text.startswith("https://") and " " not in text else _code(text)


def _code(text: str) -> str:
    for character in "\\|*_$[]{}":
        text = text.replace(character, "\\" + character)
    return text


def _file_name(name: str) -> str:
    return name.replace(":", "-")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", lambda _app: write_pages())
    app.connect("build-finished", lambda app, error: error or _copy_boards(Path(app.outdir)))
    return {"parallel_read_safe": True}
