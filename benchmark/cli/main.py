"""adbench, from a shell. Thin: what a verb needs is imported when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .cache import app as cache_app
from .data import app as data_app
from .options import (
    Json,
    RegistryFiles,
    ResultsFolder,
    StoreFolder,
    Traceback,
    error_messages,
    open_store,
    print_json,
    read_registry,
    rich_console,
)
from .plugins import check, new_app
from .report import add_report_commands
from .run import plan, run
from .speed import speed

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train, sweep and compare diffusion-based anomaly detectors. "
    "Start with: adbench run --profile tiny; adbench report",
)


# Read when torch loads. Threads that spin while they wait make a training ten times slower as soon
# as another process wants a core (measured: 2500 ms a step against 370); asleep, they cost nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app.command()(run)
app.command()(plan)


@app.command()
def report(
    out: ResultsFolder = Path("results"),
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Show the board; write it as a page (index.html), Markdown, CSV, JSON, LaTeX, from records."""
    with error_messages(traceback):
        from ..report.export import read_records, terminal, write

        records = read_records(out / "records")
        if json:
            print_json(records)
            return
        terminal(records, rich_console())
        for path in write(records, out):
            typer.echo(str(path))


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="methods, datasets, profiles or suites; all if left out")
    ] = "",
    registry: RegistryFiles = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Names that can be run."""
    with error_messages(traceback):
        names = read_registry(registry)
        rooms = ("methods", "datasets", "profiles", "suites")
        if what and what not in rooms:
            from ..registry.registry import RegistryError

            raise RegistryError(f"list takes one of {', '.join(rooms)}, not {what!r}")
        found = {
            room: {
                name: ", ".join(entry) if room == "suites" else entry.about
                for name, entry in getattr(names, room).items()
            }
            for room in rooms
            if what in ("", room)
        }
        if json:
            print_json(found)
            return
        for room, entries in found.items():
            typer.echo(room)
            for name, about in entries.items():
                typer.echo(f"  {name:<14} {about}")


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="a method or a dataset")],
    registry: RegistryFiles = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """What a method or a dataset is, where it comes from and what arguments it takes."""
    with error_messages(traceback):
        names = read_registry(registry)
        entry = names.entry(name)
        from ..planning.descriptions import describe_entry

        facts = describe_entry(entry)
        if entry.package == "methods":
            from ..leaderboard.reproduction import printed

            facts["published numbers"] = printed(name) or "none that could be checked"
        if json:
            print_json(facts)
            return
        for key, value in facts.items():
            if isinstance(value, dict):
                typer.echo(f"{key}:")
                for inner, default in value.items():
                    typer.echo(f"  {inner} = {default}")
            elif "\n" in str(value):
                typer.echo(f"{key}:\n  " + str(value).strip().replace("\n", "\n  "))
            else:
                typer.echo(f"{key}: {value}")


@app.command()
def doctor(store: StoreFolder = None, json: Json = False, traceback: Traceback = False) -> None:
    """What this machine offers and what is missing."""
    with error_messages(traceback):
        from ..planning.descriptions import describe_environment

        facts = describe_environment(open_store(store))
        if json:
            print_json(facts)
        else:
            for key, value in facts.items():
                typer.echo(f"{key:<22} {value}")


add_report_commands(app)  # in the order in which --help lists them
app.command()(speed)
app.command()(check)
app.add_typer(new_app, name="new")
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")


def main() -> None:
    sys.exit(app())


if __name__ == "__main__":
    main()
