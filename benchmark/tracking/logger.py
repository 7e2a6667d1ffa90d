"""The interface of an experiment tracker, and what is handed to it of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..experiments.matrix import Experiment
from ..leaderboard.records import Record


class Logger(Protocol):
    """Writes one experiment to a tracker.

    Any method may raise: the tracker is left out then, and the experiment goes on (`Tracker`).

    >>> from adbench.benchmark.tracking.tracker import Tracker
    >>> class Printer:
    ...     def log_parameters(self, parameters):
    ...         print(parameters)
    ...     def log_points(self, curve, values, step):
    ...         print(curve, values, step)
    ...     def log_result(self, record, pictures):
    ...         print(metrics_of(record))
    ...     def close(self):
    ...         print("closed")
    >>> with Tracker({"printer": Printer}, {"seed": 0}, lambda event, facts: None) as tracker:
    ...     tracker("train", {"step": 1, "of": 2, "loss": 0.5})
    {'seed': 0}
    train {'loss': 0.5} 1
    closed
    """

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """The settings of the experiment, by name. Called once, before anything else."""
        ...

    def log_points(self, curve: str, values: Mapping[str, float], step: int) -> None:
        """Points of a learning curve, such as loss and lr of `train`, at a step."""
        ...

    def log_result(self, record: Record, pictures: Sequence[Path]) -> None:
        """The record of the experiment, with its metrics and their intervals, and its pictures."""
        ...

    def close(self) -> None:
        """Write what is not yet written."""
        ...


def parameters_of(experiment: Experiment) -> dict[str, Any]:
    """The settings of an experiment by name, plain values.

    >>> from adbench.benchmark.tracking.logger import parameters_of
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("pca", shape=(8, 8))
    >>> parameters = parameters_of(experiment)
    >>> parameters["method"], parameters["dataset.shape"], parameters["protocol.threshold"]
    ('pca', [8, 8], 'healthy@5%')
    """
    return {
        "method": experiment.method.name,
        "dataset": experiment.dataset.name,
        "seed": experiment.seed,
        "profile": experiment.profile,
        **({"limit": experiment.limit} if experiment.limit is not None else {}),
        **({"levels": list(experiment.levels)} if experiment.levels is not None else {}),
        **{f"method.{name}": value for name, value in experiment.method_args.items()},
        **{f"dataset.{name}": value for name, value in experiment.dataset_args.items()},
        **{f"protocol.{name}": value for name, value in experiment.protocol.as_dict().items()},
    }


def metrics_of(record: Record) -> dict[str, float]:
    """The metrics of a record that are defined, with the ends of their intervals, its threshold,
    level and cost, by name.

    >>> from adbench.benchmark.tracking.logger import metrics_of
    >>> metric = {"value": 0.5, "low": 0.25, "high": 0.75}
    >>> metrics_of({"metrics": {"pixel_ap": metric}, "cost": {"train_steps": 700}})
    {'pixel_ap': 0.5, 'pixel_ap.low': 0.25, 'pixel_ap.high': 0.75, 'cost.train_steps': 700.0}
    """
    values = {}
    for name, metric in record.get("metrics", {}).items():
        for part in ("value", "low", "high"):
            if metric.get(part) is not None:
                values[name if part == "value" else f"{name}.{part}"] = metric[part]
    for name, part in (("level", "chosen"), ("threshold", "value")):
        values[name] = (record.get(name) or {}).get(part)
    values |= {f"cost.{name}": value for name, value in (record.get("cost") or {}).items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def picture_name(path: Path) -> str:
    """gallery, worst or contact, from the end of the name of an experiment's picture.

    >>> from adbench.benchmark.tracking.logger import picture_name
    >>> picture_name(Path("brats.anoddpm.tiny.s0.1f.worst.png"))
    'worst'
    """
    ending = path.name.removesuffix(".png").rpartition(".")[2]
    return ending if ending in ("worst", "contact") else "gallery"
