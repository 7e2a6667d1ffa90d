"""adbench merge and publish: results of several machines in one folder, and for everybody."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..scheduling.exit_codes import USAGE
from .options import (
    Json,
    RegistryFiles,
    StoreFolder,
    Traceback,
    echo,
    error_messages,
    print_json,
)

MERGE_EXAMPLE = "Example: adbench merge results-a results-b --to all; adbench report --out all"

PUBLISH_EXAMPLE = """Examples:

adbench publish results --to site

adbench publish results --hub my-lab/brains --weights anoddpm --yes; adbench run -m \
hub:my-lab/brains -d brats
"""


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


def publish(
    folder: Annotated[Path, typer.Argument(help="A folder of results.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The site's folder: new, empty, or an earlier site.")
    ] = None,
    hub: Annotated[
        str | None, typer.Option("--hub", help="ORG/REPO of the Hugging Face Hub.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="A method, or the beginning of a record's name, with its weights."),
    ] = None,
    datasets: Annotated[str, typer.Option("--dataset", "-d", help="Only these, with commas.")] = "",
    samples: Annotated[
        bool, typer.Option("--samples", help="The results of single samples too, for compare.")
    ] = False,
    figures: Annotated[
        bool, typer.Option("--figures", help="All charts as SVG, PDF and PNG too.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Create the repository for everybody to see.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Upload what is listed; without it nothing is.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="The folder of the data, if weights need it.")
    ] = None,
    store: StoreFolder = None,
    registry: RegistryFiles = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Write a leaderboard as a static site, and upload it with weights and a model card."""
    with error_messages(traceback):
        from ..api.sharing import publish as publish_results

        options = {
            "hub": hub, "weights": weights or (), "datasets": datasets, "samples": samples,
            "figures": figures, "store": store, "data": data, "registry": registry or (),
        }  # fmt: skip
        publication = publish_results(folder, to, **options, upload=yes, private=not public)
        if json:
            print_json({**vars(publication), "files": dict(publication.files)})
        else:
            for note in publication.notes:
                echo(f"note: {note}", err=True)
            for name, size in publication.files.items():
                echo(f"{size:>12,}  {name}")
            if publication.folder is not None:
                echo(f"{publication.folder / 'index.html'}")
        if publication.url is not None:
            echo(f"uploaded: {publication.url}", err=json)
        elif hub is not None:
            size = f"{len(publication.files)} files, {sum(publication.files.values()) / 1e6:.1f} MB"
            echo(f"nothing was uploaded: --yes uploads these ({size}) to {hub}", err=True)
            raise typer.Exit(USAGE)
