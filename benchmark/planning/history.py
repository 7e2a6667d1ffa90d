"""How long, how large and how much memory: from earlier work of the same kind, or not at all.

Alike are trainings of one method with the same arguments but for `steps`, on a dataset of the same
arguments, in the same precision, on the same device with as many threads; seed, code and how many
samples there are may differ. Looks must be of the same levels, too. So a short run with `--limit`
tells what the whole one will take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from ..store.artifact import Artifact
from ..store.cache_key import cache_key, encode_json
from ..store.index import StoreIndex

STEPS_ARGUMENT = "steps"
"""The argument that says how long a training is, where there is one."""


REQUIRED_METADATA = {
    "checkpoint": {"train_seconds", "train_samples", "peak_memory_mb"},
    "maps": {"seconds", "samples", "levels", "peak_memory_mb"},
}


class CostEstimate(NamedTuple):
    """Of one stage; None is not known. bytes: of the artefact. memory_mb: MB, at its peak.

    source: what it is known from
    """

    seconds: float | None = None
    bytes: int | None = None
    memory_mb: float | None = None
    source: str = ""


class CostHistory:
    """What the artefacts of a store tell of work to come on this device."""

    def __init__(self, index: StoreIndex, device: str, threads: int) -> None:
        self.index, self.device, self.threads = index, device, threads
        self._families: dict[str, dict[str, list[Artifact]]] = {}
        self._evaluations: dict[str, list[Artifact]] | None = None

    def estimate_training(self, key_inputs: Mapping[str, Any], samples: int) -> CostEstimate:
        """samples: in the training split"""
        alike = self._similar("checkpoint", _training_family(key_inputs))
        wanted = key_inputs["args"].get(STEPS_ARGUMENT)
        rates, peaks = [], []
        for artefact in alike:
            meta, had = artefact.metadata, artefact.key_inputs["args"].get(STEPS_ARGUMENT)
            peaks.append(float(meta["peak_memory_mb"]))
            if wanted and had and (wanted == had or not _trains_several(key_inputs["args"])):
                rates.append(float(meta["train_seconds"]) * wanted / had)
            elif not wanted and meta["train_samples"]:
                rates.append(float(meta["train_seconds"]) * samples / meta["train_samples"])
        return _estimate(rates, [a.size for a in alike], peaks, "training")

    def estimate_prediction(self, key_inputs: Mapping[str, Any], samples: int) -> CostEstimate:
        """samples: in the split"""
        family = _training_family(key_inputs["train"]) + encode_json(key_inputs["args"])
        alike = self._similar("maps", family)
        levels = len(key_inputs["levels"])
        same = [a for a in alike if a.key_inputs["levels"] == key_inputs["levels"]]
        rates = [float(a.metadata["seconds"]) * samples for a in same]
        sizes = [a.size * samples * levels / _map_count(a) for a in alike if _map_count(a)]
        peaks = [float(a.metadata["peak_memory_mb"]) for a in same]
        return _estimate(rates, sizes, peaks, "look")

    def estimate_evaluation(self, key_inputs: Mapping[str, Any]) -> CostEstimate:
        """Of the same samples by the same protocol, whatever the method, at as many levels."""
        if self._evaluations is None:
            self._evaluations = defaultdict(list)
            for artefact in self.index.artifacts("record").values():
                if artefact.seconds is not None:
                    self._evaluations[_evaluation_family(artefact.key_inputs)].append(artefact)
        alike = self._evaluations.get(_evaluation_family(key_inputs), [])
        took, sizes = [a.seconds for a in alike if a.seconds is not None], [a.size for a in alike]
        return _estimate(took, sizes, [], "judgement")

    def _similar(self, kind: str, family: str) -> list[Artifact]:
        if kind not in self._families:
            found: dict[str, list[Artifact]] = defaultdict(list)
            for artefact in self.index.artifacts(kind).values():
                for name in self._family_names(artefact):
                    found[name].append(artefact)
            self._families[kind] = found
        return self._families[kind].get(family, [])

    def _family_names(self, artefact: Artifact) -> Iterator[str]:
        """The family of an artefact, if it was made on a device like this one."""
        try:
            if artefact.kind == "checkpoint":
                name, meta = _training_family(artefact.key_inputs), artefact.metadata
            else:
                train = artefact.key_inputs["train"]
                name = _training_family(train) + encode_json(artefact.key_inputs["args"])
                meta = artefact.metadata
                if "device" not in meta:  # then as its checkpoint
                    made = self.index.artifacts("checkpoint").get(cache_key(train))
                    meta = made.metadata if made else {}
        except (KeyError, TypeError, AttributeError):
            return  # made by something else than a run
        here = meta.get("device") == self.device and meta.get("threads") == self.threads
        if here and REQUIRED_METADATA[artefact.kind] <= artefact.metadata.keys():
            yield name


def _training_family(train: Mapping[str, Any]) -> str:
    """Everything that a training's speed depends on, but for its length."""
    args = {key: value for key, value in train["args"].items() if key != STEPS_ARGUMENT}
    data = train["data"]["dataset"], train["data"]["args"]
    return encode_json([train["method"], train["supervision"], train["numerics"], args, data])


def _trains_several(args: Mapping[str, Any]) -> bool:
    """Whether more than one thing may be trained for some number of steps."""
    return any(key.endswith("_steps") for key in args)


def _map_count(artefact: Artifact) -> int:
    """How many samples times levels are in an artefact of maps."""
    return int(artefact.metadata["samples"]) * int(artefact.metadata["levels"])


def _evaluation_family(key_inputs: Mapping[str, Any]) -> str:
    """What the time of a judgement depends on."""
    try:
        maps = key_inputs["maps"]
        samples = {part: (m["data"]["samples"], len(m["levels"])) for part, m in maps.items()}
    except (KeyError, TypeError, AttributeError):
        return ""  # made by something else than a run
    return encode_json([samples, key_inputs.get("protocol")])


def _estimate(
    seconds: Sequence[float], sizes: Sequence[float], memory: Sequence[float], what: str
) -> CostEstimate:
    plural = {"look": "looks"}.get(what, f"{what}s")
    count = len(seconds)
    return CostEstimate(
        seconds=median(seconds) if seconds else None,
        bytes=round(median(sizes)) if sizes else None,
        memory_mb=max(memory, default=None),
        source=f"{count} earlier {what if count == 1 else plural}" if count else "",
    )
