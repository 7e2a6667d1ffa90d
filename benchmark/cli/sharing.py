"""adbench merge: results of several machines in one folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Traceback, echo, error_messages, print_json

MERGE_EXAMPLE = "Example: adbench merge results-a results-b --to all; adbench report --out all"


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of results.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder, or one of them.")],
    separate_boards: Annotated[
        bool,
        typer.Option(
            "--separate-boards",
            help="Accept other data or another protocol for the same dataset, as boards apart.",
        ),
    ] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Merge the results of several machines; what does not belong together is refused."""
    with error_messages(traceback):
        from ..api.sharing import merge as merge_folders

        report = merge_folders(folders, to, separate_boards=separate_boards)
        if json:
            print_json(asdict(report))
            return
        for note in report.notes:
            echo(f"note: {note}", err=True)
        replaced = f", {len(report.replaced)} in place of failures" if report.replaced else ""
        echo(f"{to}: {len(report.merged)} merged{replaced}, {len(report.present)} there already")
        echo(f"adbench report --out {to}")
