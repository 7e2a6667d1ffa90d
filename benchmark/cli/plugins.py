"""adbench check and new: for those who write methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..scheduling.exit_codes import GATE
from .completion import complete_methods
from .options import Json, Traceback, echo, error_messages, print_json, read_registry
from .run_options import with_options

new_app = typer.Typer(no_args_is_help=True, help="Write the files of a plugin.")


@with_options(("registry", "settings", "device", "dtype"))
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Methods; all if none is given.",
            autocompletion=complete_methods,
        ),
    ] = None,
    axes: Annotated[str, typer.Option(help="Of the samples, with commas.")] = "1,2,3",
    json: Json = False,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Check that methods keep the contract, on a few synthetic samples. Exit code 4 if not.

    On the CPU in float32, or with --device and --dtype elsewhere.

    Example: adbench check template-z --axes 1
    """
    with error_messages(traceback):
        from ..api.conformance import check_config
        from ..experiments.run_config import RunConfig

        rows = []
        for row in check_config(RunConfig.from_options(methods=names or (), **options), axes):
            rows.append(row)
            if not json:
                mark, why = ("broken", f": {row['violation']}") if row["violation"] else ("ok", "")
                why += f", within {row['tolerance']:g}" if row["tolerance"] else ""
                echo(f"{mark:<7} {row['method']}, {row['axes']}-d: {row['check']}{why}")
        broken = sum(bool(row["violation"]) for row in rows)
        if json:
            print_json(rows)
        else:
            echo(f"{len(rows) - broken} of {len(rows)} checks keep the contract")
        if broken or not rows:
            raise typer.Exit(GATE)


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="As users will write it: my-method.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; ./NAME if left out.")
    ] = None,
    traceback: Traceback = False,
) -> None:
    """Write a package with one method that works and passes `adbench check`, yours to change.

    Example: adbench new method my-method
    """
    with error_messages(traceback):
        from ..plugins.scaffold import create_plugin as write

        folder = out or Path(name)
        for path in write(name, folder, set(read_registry(None).methods)):
            echo(str(path))
        listed = folder / "registry.yaml"
        echo(f"next: adbench check {name} --registry {listed}")
