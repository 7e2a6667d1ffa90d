"""Estimate time, size and memory of a stage from similar work in the store, or not at all.

Similar are trainings of one method with the same arguments but for `steps`, on a dataset with the
same arguments, in the same precision, on the same device with the same number of threads; seed,
code and number of samples may differ. Predictions must be of the same levels, too. So a short run
with `--limit` tells what the whole one will cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from ..store.artifact import Artifact
from ..store.cache_key import cache_key
from ..store.families import STEPS_ARGUMENT
from ..store.index import StoreIndex

REQUIRED_METADATA = {
    "checkpoint": {"train_seconds", "train_samples", "peak_memory_mb"},
    "maps": {"seconds", "samples", "levels", "peak_memory_mb"},
}


class CostEstimate(NamedTuple):
    """The cost of one stage; None if unknown.

    bytes: of the artifact
    memory_mb: at the peak, in MB
    source: what the estimate is based on

    >>> from adbench.benchmark.planning.history import CostEstimate
    >>> CostEstimate(60.0, source="1 earlier training").memory_mb is None
    True
    """

    seconds: float | None = None
    bytes: int | None = None
    memory_mb: float | None = None
    source: str = ""


class CostHistory:
    """Cost estimates for one device from the artifacts of a store.

    index: of the store
    device, threads: the name of the device, and the number of threads, as in the metadata

    >>> from pathlib import Path
    >>> from adbench.benchmark.planning.history import CostHistory
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.benchmark.store.index import StoreIndex
    >>> history = CostHistory(StoreIndex(Store(Path("/no/such/store"))), "cpu", 2)
    >>> history.estimate_evaluation({"maps": {}, "protocol": {}}).seconds is None
    True
    """

    def __init__(self, index: StoreIndex, device: str, threads: int) -> None:
        self.index, self.device, self.threads = index, device, threads

    def estimate_training(self, key_inputs: Mapping[str, Any], samples: int) -> CostEstimate:
        """The cost of a training. samples: number of samples in the training split"""
        similar = self._similar("checkpoint", key_inputs)
        steps = key_inputs["args"].get(STEPS_ARGUMENT)
        seconds = []
        for artifact in similar:
            metadata, its_steps = artifact.metadata, artifact.key_inputs["args"].get(STEPS_ARGUMENT)
            measured = float(metadata["train_seconds"])
            if steps and its_steps:
                if steps == its_steps or not _trains_several(key_inputs["args"]):
                    seconds.append(measured * steps / its_steps)
            elif not steps and metadata["train_samples"]:
                seconds.append(measured * samples / metadata["train_samples"])
        memory = [float(artifact.metadata["peak_memory_mb"]) for artifact in similar]
        return _estimate(seconds, [artifact.size for artifact in similar], memory, "training")

    def estimate_prediction(self, key_inputs: Mapping[str, Any], samples: int) -> CostEstimate:
        """The cost of predicting a split. samples: number of samples in the split"""
        similar = self._similar("maps", key_inputs)
        levels = key_inputs["levels"]
        same_levels = [a for a in similar if a.key_inputs["levels"] == levels]
        repeats = _repeats(key_inputs)
        seconds = [
            float(a.metadata["seconds"]) * samples * repeats / _repeats(a.key_inputs)
            for a in same_levels
        ]
        memory = [float(a.metadata["peak_memory_mb"]) for a in same_levels]
        counts = [int(a.metadata["samples"]) * int(a.metadata["levels"]) for a in similar]
        pairs = zip(similar, counts, strict=True)
        sizes = [a.size * samples * len(levels) / count for a, count in pairs if count]
        return _estimate(seconds, sizes, memory, "prediction")

    def estimate_evaluation(self, key_inputs: Mapping[str, Any]) -> CostEstimate:
        """The cost of an evaluation: that of the same samples, protocol and number of levels."""
        similar = self._similar("record", key_inputs)
        seconds = [artifact.seconds for artifact in similar if artifact.seconds is not None]
        return _estimate(seconds, [artifact.size for artifact in similar], [], "evaluation")

    def _similar(self, kind: str, key_inputs: Mapping[str, Any]) -> list[Artifact]:
        """Those of the same family that were created on this device."""
        return [a for a in self.index.similar(kind, key_inputs) if self._is_usable(a)]

    def _is_usable(self, artifact: Artifact) -> bool:
        metadata = artifact.metadata
        if artifact.kind == "record":
            return artifact.seconds is not None
        if artifact.kind == "maps" and "device" not in metadata:  # then it is its checkpoint's
            key = cache_key(artifact.key_inputs["train"])
            checkpoint = self.index.artifact("checkpoint", key)
            metadata = checkpoint.metadata if checkpoint else {}
        device = metadata.get("device"), metadata.get("threads")
        complete = REQUIRED_METADATA[artifact.kind] <= artifact.metadata.keys()
        return complete and device == (self.device, self.threads)


def _repeats(key_inputs: Mapping[str, Any]) -> int:
    """How often every sample is predicted."""
    return int(key_inputs.get("repeats", [1])[0])


def _trains_several(args: Mapping[str, Any]) -> bool:
    """Whether more than one network may be trained, each for a number of steps of its own."""
    return any(key.endswith("_steps") for key in args)


def _estimate(
    seconds: Sequence[float], sizes: Sequence[float], memory: Sequence[float], stage: str
) -> CostEstimate:
    count = len(seconds)
    return CostEstimate(
        seconds=median(seconds) if seconds else None,
        bytes=round(median(sizes)) if sizes else None,
        memory_mb=max(memory, default=None),
        source=f"{count} earlier {stage}{'s' * (count != 1)}" if count else "",
    )
