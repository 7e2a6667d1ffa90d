"""adbench check and new: for those who write methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..scheduling.exit_codes import GATE
from .options import (
    Json,
    RegistryFiles,
    Settings,
    Traceback,
    error_messages,
    print_json,
    read_registry,
)

if TYPE_CHECKING:
    from ..registry.registry import Entry

new_app = typer.Typer(no_args_is_help=True, help="Write the files of a plugin.")


def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="methods; all if left out")
    ] = None,
    registry: RegistryFiles = None,
    set_: Settings = None,
    axes: Annotated[str, typer.Option(help="Of the samples, with commas.")] = "1,2,3",
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Does a method keep the contract? On a few made-up samples; exit code 4 if it does not."""
    with error_messages(traceback):
        from ..experiments.matrix import parse_integers, parse_overrides, resolve_overrides

        found = read_registry(registry)
        entries = [found.method(name) for name in names or found.methods]
        sizes = parse_integers(axes, "--axes", 1, 3)
        asked = resolve_overrides(
            parse_overrides(set_ or []), [entry.name for entry in entries], [], found
        )
        rows = [
            row for entry in entries for row in _check_method(entry, asked[entry.name], sizes, json)
        ]
        if json:
            print_json(rows)
        broken = [row for row in rows if row["broken"]]
        if not json:
            typer.echo(f"{len(rows) - len(broken)} of {len(rows)} answers keep the contract")
        if broken or not rows:
            raise typer.Exit(GATE)


def _check_method(
    entry: Entry, overrides: Mapping[str, Any], axes: list[int], quiet: bool
) -> list[dict[str, Any]]:
    from ..plugins.conformance import check_method as ask

    rows = []
    for answer in ask(entry, overrides, axes):
        rows.append({"method": entry.name, **vars(answer)})
        if not quiet:
            mark = "broken" if answer.violation else "ok"
            why = f": {answer.violation}" if answer.violation else ""
            typer.echo(f"{mark:<7} {entry.name}, {answer.axes}-d: {answer.check}{why}")
    return rows


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="as users will write it: my-method")],
    out: Annotated[Path | None, typer.Option(help="Where to; ./NAME if left out.")] = None,
    traceback: Traceback = False,
) -> None:
    """A package with one method that works, passes `adbench check`, and is yours to change."""
    with error_messages(traceback):
        from ..plugins.scaffold import create_plugin as write

        folder = out or Path(name)
        for path in write(name, folder, set(read_registry(None).methods)):
            typer.echo(str(path))
        listed = folder / "registry.yaml"
        typer.echo(f"next: adbench check {name} --registry {listed}")
