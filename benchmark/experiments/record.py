"""The parts of an experiment's record that are not metrics: what it is, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...datasets.base import Dataset
from ...engine.runtime.determinism import repeat_tolerance
from ...methods.base import Method
from ..evaluation.named_protocols import protocol_name
from ..store.artifact_store import Artifact
from .matrix import Experiment, content_arguments

SPLIT_NAMES = {"held_out": "calibration"}
"""Splits whose name in a record differs from that in the store."""


def record_header(
    experiment: Experiment,
    dataset: Dataset | None,
    method_class: type[Method] | None,
    status: str,
    reason: str = "",
    fingerprint: str = "",
) -> dict[str, Any]:
    """Return the fields that every record has, whatever became of the experiment, as JSON values.

    dataset, method_class: None where they could not be loaded
    status: ok, failed or skipped
    reason: why, in one line
    fingerprint: a digest of the predicted samples

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments()
    >>> header = record_header(experiment, None, None, "failed", "no memory")
    >>> header["method"]["name"], header["dataset"]["name"], header["status"], header["reason"]
    ('template-z', 'phantom', 'failed', 'no memory')
    """
    ignored = dataset.cache_key_ignores if dataset is not None else frozenset({"root"})
    return {
        "schema": 2,
        "status": status,
        "reason": reason or None,
        "method": {
            "name": experiment.method.name,
            "label": experiment.method.label,
            "supervision": method_class.supervision if method_class else None,
            "baseline": experiment.method.baseline,
            "args": dict(experiment.method_args),
            "paper": experiment.method.paper,
        },
        "dataset": {
            "name": experiment.dataset.name,
            "args": content_arguments(experiment, ignored),
            "fingerprint": fingerprint,
            "synthetic": bool(dataset is not None and dataset.synthetic),
        },
        **({"tuning": dict(experiment.tuning)} if experiment.tuning is not None else {}),
        "profile": experiment.profile,
        "seed": experiment.seed,
        "partial": experiment.limit,
        "training": {
            "fraction": experiment.fraction,
            "contamination": experiment.contamination,
        },
        "protocol": {
            **experiment.protocol.as_dict(),
            "id": experiment.protocol.id,
            "name": protocol_name(experiment.protocol),
            "text": experiment.protocol.describe(),
        },
    }


def artifact_fields(
    checkpoint: Artifact, maps: Mapping[str, Artifact], record_key: str
) -> dict[str, Any]:
    """Return the fields of a record that say what its artifacts are, and what they cost to make.

    maps: by split
    record_key: cache key of the evaluated record

    >>> from pathlib import Path
    >>> training = {"gflops_per_evaluation": 2.0} | dict.fromkeys(
    ...     ["train_steps", "train_samples", "train_gflops", "train_seconds", "parameters",
    ...      "peak_memory_mb", "versions", "device", "threads"], 1
    ... )
    >>> prediction = {"evaluations": 30, "levels": 3, "seconds": 6.0, "peak_memory_mb": 5}
    >>> checkpoint = Artifact("checkpoint", "ab", Path(), {}, training)
    >>> maps = {"test": Artifact("maps", "cd", Path(), {}, prediction)}
    >>> fields = artifact_fields(checkpoint, maps, "ef")
    >>> fields["cost"]["gflops_per_image"], fields["cost"]["seconds_per_image"]
    (20.0, 2.0)
    >>> fields["keys"]
    {'checkpoint': 'ab', 'maps/test': 'cd', 'record': 'ef'}
    """
    stages = checkpoint.metadata.get("stages", {})
    return {
        "cost": _cost_summary(checkpoint, maps),
        "keys": {
            "checkpoint": checkpoint.key,
            **{f"stage/{name}": key for name, key in stages.items()},
            **{
                f"maps/{SPLIT_NAMES.get(name, name)}": artifact.key
                for name, artifact in maps.items()
            },
            "record": record_key,
            **{k: v for k, v in checkpoint.key_inputs.items() if k == "weights"},
        },
        "versions": checkpoint.metadata["versions"],
        "device": checkpoint.metadata["device"],
        "threads": checkpoint.metadata["threads"],
        **_determinism([checkpoint, *maps.values()]),
    }


def _determinism(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """How far results of a repetition may lie apart, and because of what; nothing where they are
    the same to the bit."""
    operations = {
        name for artifact in artifacts for name in artifact.metadata.get("nondeterministic", [])
    }
    if not operations:
        return {}
    facts = {"operations": sorted(operations), "tolerance": repeat_tolerance(operations)}
    return {"nondeterminism": facts}


def _cost_summary(checkpoint: Artifact, maps: Mapping[str, Artifact]) -> dict[str, float]:
    """Evaluations, FLOPs and measured seconds per test image are those of one level."""
    training, prediction = checkpoint.metadata, maps["test"].metadata
    evaluations = prediction["evaluations"] / prediction["levels"]
    return {
        "train_steps": training["train_steps"],
        "train_samples": training["train_samples"],
        "train_gflops": training["train_gflops"],
        "parameters": training["parameters"],
        "evaluations_per_image": evaluations,
        "gflops_per_image": evaluations * training["gflops_per_evaluation"],
        "train_seconds": training["train_seconds"],
        "seconds_per_image": prediction["seconds"] / prediction["levels"],
        "peak_memory_mb": max(training["peak_memory_mb"], prediction["peak_memory_mb"]),
    }
