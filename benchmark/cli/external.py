"""adbench evaluate and export-maps: results of other programs on the board, and maps for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .completion import complete_datasets
from .options import (
    Json,
    RegistryFiles,
    StoreFolder,
    Traceback,
    echo,
    error_messages,
    print_json,
    rich_console,
)
from .run_options import DATA, OPTIONS, PROTOCOL, option, with_options

EVALUATE_EXAMPLES = """Examples:

adbench evaluate --maps my-maps/ -d brats --data ~/brats --name my-method

adbench evaluate --maps scores.csv -d mvtec/hazelnut --name patchcore-2.7

adbench export-maps results/records/X.json --to maps/     (writes the layout that is read)
"""
EXPORT_MAPS_EXAMPLE = (
    "Example: adbench export-maps results/records/X.json --to maps --format nifti; "
    "adbench evaluate --maps maps -d brats --name copy"
)

SHARED = ["settings", "profile", "registry", "data", "limit", "protocol", "level_rule",
          "threshold", "reducer", "post", "budget"]  # fmt: skip


@with_options(SHARED)
def evaluate(
    maps: Annotated[
        Path,
        option(
            "What",
            "--maps",
            help="A folder of KEY.npy, .tif, .png, .nii.gz (`/` makes folders), a .h5 with an "
            "array per key, or a .csv of scores (key,score).",
        ),
    ],
    dataset: Annotated[
        str,
        option(DATA, "--dataset", "-d", help="Its name.", autocompletion=complete_datasets),
    ],
    name: Annotated[str | None, option("What", help="Of the method on the board.")] = None,
    scores: Annotated[
        Path | None, option("What", help="The method's own scores; else scores.csv of the folder.")
    ] = None,
    seed: Annotated[int, option("What", min=0, help="Of the training.")] = 0,
    published_level: Annotated[
        int | None,
        option(PROTOCOL, min=0, max=1000, help="The paper's, of maps at several (level-100/…)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where records and the leaderboard are.")] = Path(
        "results"
    ),
    json: Json = False,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Evaluate maps or scores of another program by the protocol; they join the leaderboard.

    Files are matched to samples by key; what is missing, left over, of another shape or not finite
    is listed, and nothing is written. Results of the validation samples choose level and threshold,
    those of the calibration samples the threshold healthy@5%.
    """
    with error_messages(traceback):
        from ..api.external import evaluate_maps
        from ..external.evaluate_results import describe_evaluation
        from ..scheduling.console import ConsoleReporter

        chosen = {key: value for key, value in options.items() if value is not None}
        reporter = ConsoleReporter(rich_console(err=True))
        with reporter.progress_of(f"prepare {dataset}") as progress:
            results = evaluate_maps(
                maps, dataset, name=name, scores=scores, seed=seed,
                published_level=published_level, out=out, progress=progress, **chosen,
            )  # fmt: skip
        (record,) = results.records
        if json:
            print_json(record)
            return
        for line in describe_evaluation(record):
            echo(line)
        for metric, values in record["metrics"].items():
            if values["value"] is not None:
                interval = "" if values["low"] is None else (
                    f"  [{values['low']:.3f}, {values['high']:.3f}]"
                )  # fmt: skip
                echo(f"{metric:24}{values['value']:.3f}{interval}")
        echo(str(results.paths()[0]))
        echo(f"adbench report --out {out}", err=True)


def export_maps(
    record: Annotated[
        Path, typer.Argument(metavar="RECORD", help="A file of the folder records/ of the results.")
    ],
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")],
    format: Annotated[
        str, typer.Option(help="npy, hdf5, nifti, tiff (float), png (16 bits).")
    ] = "npy",
    all_levels: Annotated[
        bool, typer.Option("--all-levels", help="Of every noise level, not the chosen one alone.")
    ] = False,
    data: Annotated[Path | None, OPTIONS["data"].__metadata__[0]] = None,
    registry: RegistryFiles = None,
    store: StoreFolder = None,
    traceback: Traceback = False,
) -> None:
    """Write the maps of a run as files, a map per sample, in the layout that evaluate reads."""
    with error_messages(traceback):
        from ..api.external import export_maps as export

        paths = export(
            record, to, format=format, all_levels=all_levels, store=store, data=data,
            registry=registry or (),
        )  # fmt: skip
        echo(f"{len(paths)} files in {to}")
