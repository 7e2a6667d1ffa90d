"""A run that several processes were launched for: the first does everything, and calls the others
when there is something to train; they train along, keep nothing, and wait for the next call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...datasets.base import Dataset
from ...engine.runtime.context import Interrupted, NullStateStore, TrainingContext
from ...engine.runtime.distributed import Team
from .fit_predict import fit
from .matrix import Experiment


@contextmanager
def announce_training(team: Team) -> Iterator[Callable[[], None]]:
    """Around the place where the first process may train: it calls the others just before, and
    if it does not, they hear at the end that there was nothing to do."""
    called = False

    def call() -> None:
        nonlocal called
        called = True
        team.broadcast_flag(True)

    try:
        yield call
    finally:
        if not called:
            team.broadcast_flag(False)


def run_follower(
    experiments: Sequence[Experiment], dataset: Dataset, context: TrainingContext
) -> None:
    """Train along with the first process, which goes through the same cells in the same order.

    Raises Interrupted with it. What fails here has failed there too, and is reported there.
    """
    for cell in experiments:
        if not context.team.broadcast_flag(False):
            continue
        with TemporaryDirectory(prefix="adbench-") as folder:
            try:
                fit(
                    Path(folder) / "weights",
                    cell,
                    dataset,
                    context,
                    NullStateStore(),
                    lambda *_: None,
                )
            except Interrupted:
                raise
            except Exception:
                continue
