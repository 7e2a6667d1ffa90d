"""adbench predict: a trained detector on new files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..scheduling.exit_codes import NO_DATA
from .options import (
    RegistryFiles,
    StoreFolder,
    Traceback,
    echo,
    error_messages,
    rich_console,
)

PREDICT_EXAMPLE = "Example: adbench predict results/records/volumes.anoddpm.paper.s0.1a2b3c4d.json \
--data scans/ --to predicted/; the same command goes on after a kill"


def predict(
    detector: Annotated[
        str,
        typer.Argument(
            metavar="RECORD|METHOD",
            help="The file of a record, or a method that --results holds a record of.",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option("--data", help="A file, or a folder that is searched for files (again)."),
    ],
    to: Annotated[Path, typer.Option("--to", help="Where scores.csv, maps/ and so on go.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Which dataset's record of a method.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which seed's record of a method.")] = None,
    results: Annotated[
        Path, typer.Option("--results", help="The folder that holds a method's records.")
    ] = Path("results"),
    rate: Annotated[
        float,
        typer.Option(help="Call a file abnormal up to this p-value: the rate of false alarms."),
    ] = 0.05,
    maps: Annotated[
        bool, typer.Option("--maps/--no-maps", help="Write maps and masks, or scores alone.")
    ] = True,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="The folders of --data hold DICOM series.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(help="The training data, for a checkpoint of an older adbench."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    store: StoreFolder = None,
    registry: RegistryFiles = None,
    traceback: Traceback = False,
) -> None:
    """Predict new images, volumes or signals with a trained detector."""
    with error_messages(traceback):
        from ..api.prediction import predict as predict_

        with _progress_bar() as on_progress:
            outcome = predict_(
                detector, list(data), to, dataset=dataset, results=results, seed=seed, rate=rate,
                maps=maps, dicom=dicom, store=store, root=root, registry=registry or (),
                device=device, on_progress=on_progress,
            )  # fmt: skip
        for note in outcome.notes:
            echo(f"note: {note}", err=True)
        for problem in outcome.problems:
            echo(f"error: {problem}", err=True)
        names = {row["file"] for row in outcome.rows if not row.get("problem")}
        earlier = len(names) - outcome.computed
        done = f"{outcome.computed} files predicted" + (f", {earlier} before" if earlier else "")
        abnormal = len({r["file"] for r in outcome.rows if r.get("decision") == "abnormal"})
        decided = any("decision" in row for row in outcome.rows)
        called = f", {abnormal} of {len(names)} called abnormal" if decided else ""
        failed = f", {len(outcome.problems)} not" if outcome.problems else ""
        echo(f"{done}{failed}{called}: {outcome.folder / 'scores.csv'}")
        if outcome.problems:
            raise typer.Exit(NO_DATA)


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time that is left, on a terminal; nothing in a pipe."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = rich_console(err=True)
    if not console.is_terminal:
        yield lambda name, done, total: None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("after"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading the detector", total=None)

        def on_progress(name: str, done: int, total: int) -> None:
            from rich.markup import escape

            bar.update(task, description=escape(name[-40:]), completed=done, total=total)

        yield on_progress
