"""What each stage of an experiment depends on: the inputs of its cache keys.

Three stages are stored: the checkpoint, the maps of each split, and the evaluated record; the
inputs of each hold those of the stages before it. What does not change a result (device, batch
size, where the files of a dataset lie) is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...methods.base import Method
from ..registry.code_fingerprint import folder_digest, loaded_code_digest
from ..store.cache_key import canonical_json, to_json_dict
from .matrix import PREDICTED_SPLITS, Experiment, content_arguments
from .repeated_detection import RepeatedDetection
from .splits import Splits


@cache
def evaluation_code() -> str:
    """Return the digest of all files of `evaluation`, as they were when this was first called.

    Sub-packages are included; comments, docstrings and layout do not count.

    >>> from adbench.benchmark import evaluation
    >>> evaluation_code() == folder_digest(Path(evaluation.__file__).parent)
    True
    """
    return folder_digest(Path(__file__).parents[1] / "evaluation")


@dataclass(frozen=True)
class KeyInputs:
    """The inputs of the cache keys of an experiment's stages, as plain JSON values.

    checkpoint: of the fitted weights
    maps: of the maps, by split
    record: of the evaluated record

    >>> inputs = KeyInputs({"seed": 0}, {"test": {"levels": [250]}}, {"code": "ab12"})
    >>> inputs.maps["test"]
    {'levels': [250]}
    """

    checkpoint: Mapping[str, Any]
    maps: Mapping[str, Mapping[str, Any]]
    record: Mapping[str, Any]


def experiment_key_inputs(
    experiment: Experiment,
    method_class: type[Method],
    splits: Splits,
    levels: Sequence[int],
    numerics: str,
) -> KeyInputs:
    """Return the cache-key inputs of every stage of an experiment.

    levels: the noise levels that are swept
    numerics: what networks compute in

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments()
    >>> from adbench.datasets.phantom import Phantom
    >>> splits, method_class = Splits(Phantom(shape=(8,)), limit=2), experiment.method.load()
    >>> inputs = experiment_key_inputs(experiment, method_class, splits, [0], "float32")
    >>> inputs.checkpoint["numerics"], [*inputs.maps]
    ('float32', ['held_out', 'val', 'test'])
    """
    inference, args = method_class.inference, experiment.method_args
    checkpoint = to_json_dict(
        {
            "data": data_key_inputs(experiment, splits, ["train", "held_out"]),
            "method": experiment.method.class_path,
            "supervision": method_class.supervision,
            "args": {key: value for key, value in args.items() if key not in inference},
            "seed": experiment.seed,
            "numerics": numerics,
            "code": loaded_code_digest(method_class),
            **({"weights": experiment.method.weights} if experiment.method.weights else {}),
        }
    )
    maps = {
        name: to_json_dict(
            {
                "train": checkpoint,
                "data": data_key_inputs(experiment, splits, [name]),
                "args": {key: value for key, value in args.items() if key in inference},
                "levels": list(levels),
                "part": name,
                **repeats_key_inputs(experiment),
            }
        )
        for name in splits.predicted
    }
    record = {"maps": maps, "protocol": experiment.protocol.as_dict(), "code": evaluation_code()}
    return KeyInputs(checkpoint, maps, to_json_dict(record))


def repeats_key_inputs(experiment: Experiment) -> dict[str, Any]:
    """Return what a protocol of repeated predictions adds to the inputs of maps; else nothing.

    >>> from types import SimpleNamespace
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> repeats_key_inputs(SimpleNamespace(protocol=Protocol()))
    {}
    >>> repeats_key_inputs(SimpleNamespace(protocol=Protocol(repeats=5)))["repeats"]
    [5, 'diagonal']
    """
    protocol = experiment.protocol
    if protocol.repeats == 1:
        return {}
    return {
        "repeats": [protocol.repeats, protocol.covariance],
        "repeats_code": loaded_code_digest(RepeatedDetection),
    }


def data_key_inputs(experiment: Experiment, splits: Splits, names: Sequence[str]) -> dict[str, Any]:
    """Return what the named splits hold: the dataset's arguments, and a digest of the samples.

    >>> from types import SimpleNamespace
    >>> from adbench.datasets.phantom import Phantom
    >>> experiment = SimpleNamespace(
    ...     dataset=SimpleNamespace(name="phantom"), dataset_args={"shape": [8]}
    ... )
    >>> inputs = data_key_inputs(experiment, Splits(Phantom(shape=(8,)), limit=2), ["test"])
    >>> inputs["args"], [*inputs["samples"]]
    ({'shape': [8]}, ['test'])
    """
    return {
        "dataset": experiment.dataset.name,
        "args": content_arguments(experiment, splits.dataset.cache_key_ignores),
        "samples": {name: splits.digest(name) for name in names},
    }


def data_fingerprint(experiment: Experiment, splits: Splits) -> str:
    """Return what tells the predicted samples of an experiment from others, 16 hexadecimal digits.

    >>> from types import SimpleNamespace
    >>> from adbench.datasets.phantom import Phantom
    >>> experiment = SimpleNamespace(
    ...     dataset=SimpleNamespace(name="phantom"), dataset_args={"shape": [8]}
    ... )
    >>> splits = [Splits(Phantom(shape=(8,)), limit=limit) for limit in (2, 2, 3)]
    >>> first, same, other = (data_fingerprint(experiment, each) for each in splits)
    >>> first == same, first == other
    (True, False)
    """
    samples = canonical_json(data_key_inputs(experiment, splits, PREDICTED_SPLITS))
    return hashlib.sha256(samples.encode()).hexdigest()[:16]
