"""One run in several processes: rank 0 does everything, the others only train along.

Rank 0 announces before every experiment whether there is anything to train. The followers keep
nothing, and wait for the next announcement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ...datasets.base import Dataset
from ...engine.runtime.context import Interrupted, NullStateStore, TrainingContext
from ...engine.runtime.distributed import Team
from .fit_predict import fit
from .matrix import Experiment
from .resolve import resolve


@contextmanager
def announce_training(team: Team) -> Iterator[Callable[[], None]]:
    """Broadcast to the followers whether rank 0 trains within this block.

    Yields a function that rank 0 calls just before it trains. If it does not, the end of the block
    broadcasts that there was nothing to train.

    >>> from types import SimpleNamespace
    >>> flags = []
    >>> team = SimpleNamespace(broadcast_flag=flags.append)
    >>> with announce_training(team) as announce:
    ...     announce()
    >>> with announce_training(team):
    ...     pass
    >>> flags
    [True, False]
    """
    announced = False

    def announce() -> None:
        nonlocal announced
        announced = True
        team.broadcast_flag(True)

    try:
        yield announce
    finally:
        if not announced:
            team.broadcast_flag(False)


def run_follower(
    experiments: Sequence[Experiment], dataset: Dataset, context: TrainingContext
) -> None:
    """Train along with rank 0, which goes through the same experiments in the same order.

    dataset: prepared; of all the experiments

    Raises Interrupted where rank 0 does. Other errors happen in rank 0 too, and are reported there.

    >>> from types import SimpleNamespace
    >>> answers = iter([False, False])  # of rank 0: both are in its store
    >>> team = SimpleNamespace(broadcast_flag=lambda flag: next(answers))
    >>> run_follower(["first", "second"], None, TrainingContext(team=team))
    >>> list(answers)
    []
    """
    for experiment in experiments:
        if not context.team.broadcast_flag(False):
            continue
        with TemporaryDirectory(prefix="adbench-") as folder:
            try:
                resolved = resolve(experiment, dataset, context.numerics)
                fit(
                    Path(folder) / "weights",
                    resolved.build_method(),
                    resolved.splits["train"],
                    resolved.splits["held_out"],
                    replace(
                        context,
                        seed=experiment.seed,
                        state_store=NullStateStore(),
                        on_event=_ignore_event,
                    ),
                )
            except Interrupted:
                raise
            except Exception:
                continue


def _ignore_event(event: str, facts: object) -> None:
    pass
