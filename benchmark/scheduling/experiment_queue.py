"""The queue of a run: its experiments, dataset by dataset, until each is started."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..experiments.matrix import Experiment
from ..experiments.record import record_header
from .executor import group_by_dataset


@dataclass
class DatasetGroup:
    """Experiments on one dataset, which is prepared once before them.

    experiments: those that are yet to be started
    state: of the dataset
    headers: the fields that every record has, by experiment

    >>> DatasetGroup(deque()).state
    'new'
    """

    experiments: deque[Experiment]
    state: Literal["new", "preparing", "ready"] = "new"
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)


class ExperimentQueue:
    """The experiments that are yet to be started, in order, each after its dataset is prepared.

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> queue = ExperimentQueue(example_experiments("dae"))
    >>> group = queue.next()
    >>> group.state, queue.next() is None
    ('preparing', True)
    >>> group.state = "ready"
    >>> queue.next().method.name, queue.is_empty
    ('dae', True)
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self._groups = [DatasetGroup(deque(group)) for _, group in group_by_dataset(experiments)]
        self._by_name = {
            each.name: (each, group) for group in self._groups for each in group.experiments
        }

    def __len__(self) -> int:
        """The number of all experiments, whether started or not."""
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        """Whether an experiment has this name."""
        return name in self._by_name

    def experiment(self, name: str) -> Experiment:
        """Return the experiment of a name."""
        return self._by_name[name][0]

    def group(self, name: str) -> DatasetGroup:
        """Return the group of the experiment of a name."""
        return self._by_name[name][1]

    @property
    def is_empty(self) -> bool:
        """Whether every experiment has been started."""
        return not any(group.experiments for group in self._groups)

    @property
    def has_startable(self) -> bool:
        """Whether `next` has something to start."""
        return any(group.state != "preparing" and group.experiments for group in self._groups)

    def next(self) -> DatasetGroup | Experiment | None:
        """Return what is started next, None for nothing: a group whose dataset is to be prepared,
        which counts as preparing from now on, or an experiment, which leaves the queue."""
        for group in self._groups:
            if group.state == "new" and group.experiments:
                group.state = "preparing"
                return group
            if group.state == "ready" and group.experiments:
                return group.experiments.popleft()
        return None

    def put_back(self, name: str) -> None:
        """Have an experiment started again, before the others on its dataset."""
        experiment, group = self._by_name[name]
        group.experiments.appendleft(experiment)

    def header(self, experiment: Experiment) -> dict[str, Any]:
        """Return the fields that every record has; without the dataset's before it is prepared."""
        header = self.group(experiment.name).headers.get(experiment.name)
        return header or record_header(experiment, None, experiment.method.load(), "failed")
