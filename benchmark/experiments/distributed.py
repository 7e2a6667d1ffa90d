"""A run that several processes were launched for: the first does everything, and calls the others
when there is something to train; they train along, keep nothing, and wait for the next call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...datasets.base import Dataset
from ...engine.runtime.distributed import Team
from ...engine.runtime.run import Forget, Interrupted, Run
from .fit_predict import fit
from .matrix import Cell


@contextmanager
def calling(team: Team) -> Iterator[Callable[[], None]]:
    """Around the place where the first process may train: it calls the others just before, and
    if it does not, they hear at the end that there was nothing to do."""
    called = False

    def call() -> None:
        nonlocal called
        called = True
        team.lead(True)

    try:
        yield call
    finally:
        if not called:
            team.lead(False)


def follow(cells: Sequence[Cell], dataset: Dataset, run: Run) -> None:
    """Train along with the first process, which goes through the same cells in the same order.

    Raises Interrupted with it. What fails here has failed there too, and is reported there.
    """
    for cell in cells:
        if not run.team.lead(False):
            continue
        with TemporaryDirectory(prefix="adbench-") as folder:
            try:
                fit(Path(folder) / "weights", cell, dataset, run, Forget(), lambda *_: None)
            except Interrupted:
                raise
            except Exception:
                continue
