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

from ..store.artifact import Artefact
from ..store.cache_key import key_of, text_of
from ..store.index import Stock

LENGTH = "steps"
"""The argument that says how long a training is, where there is one."""


NEEDED = {
    "checkpoint": {"train_seconds", "train_samples", "peak_memory_mb"},
    "maps": {"seconds", "samples", "levels", "peak_memory_mb"},
}


class Guess(NamedTuple):
    """Of one stage; None is not known. bytes: of the artefact. memory: MB, at its peak.

    source: what it is known from
    """

    seconds: float | None = None
    bytes: int | None = None
    memory: float | None = None
    source: str = ""


class Past:
    """What the artefacts of a store tell of work to come on this device."""

    def __init__(self, stock: Stock, device: str, threads: int) -> None:
        self.stock, self.device, self.threads = stock, device, threads
        self._families: dict[str, dict[str, list[Artefact]]] = {}
        self._judgements: dict[str, list[Artefact]] | None = None

    def training(self, identity: Mapping[str, Any], samples: int) -> Guess:
        """samples: in the training split"""
        alike = self._like("checkpoint", _family(identity))
        wanted = identity["args"].get(LENGTH)
        rates, peaks = [], []
        for artefact in alike:
            meta, had = artefact.meta, artefact.identity["args"].get(LENGTH)
            peaks.append(float(meta["peak_memory_mb"]))
            if wanted and had and (wanted == had or not _networks(identity["args"])):
                rates.append(float(meta["train_seconds"]) * wanted / had)
            elif not wanted and meta["train_samples"]:
                rates.append(float(meta["train_seconds"]) * samples / meta["train_samples"])
        return _guess(rates, [a.size for a in alike], peaks, "training")

    def looking(self, identity: Mapping[str, Any], samples: int) -> Guess:
        """samples: in the split"""
        family = _family(identity["train"]) + text_of(identity["args"])
        alike = self._like("maps", family)
        levels = len(identity["levels"])
        same = [a for a in alike if a.identity["levels"] == identity["levels"]]
        rates = [float(a.meta["seconds"]) * samples for a in same]
        sizes = [a.size * samples * levels / _shown(a) for a in alike if _shown(a)]
        peaks = [float(a.meta["peak_memory_mb"]) for a in same]
        return _guess(rates, sizes, peaks, "look")

    def judging(self, identity: Mapping[str, Any]) -> Guess:
        """Of the same samples by the same protocol, whatever the method, at as many levels."""
        if self._judgements is None:
            self._judgements = defaultdict(list)
            for artefact in self.stock.every("record").values():
                if artefact.took is not None:
                    self._judgements[_judged(artefact.identity)].append(artefact)
        alike = self._judgements.get(_judged(identity), [])
        took, sizes = [a.took for a in alike if a.took is not None], [a.size for a in alike]
        return _guess(took, sizes, [], "judgement")

    def _like(self, kind: str, family: str) -> list[Artefact]:
        if kind not in self._families:
            found: dict[str, list[Artefact]] = defaultdict(list)
            for artefact in self.stock.every(kind).values():
                for name in self._named(artefact):
                    found[name].append(artefact)
            self._families[kind] = found
        return self._families[kind].get(family, [])

    def _named(self, artefact: Artefact) -> Iterator[str]:
        """The family of an artefact, if it was made on a device like this one."""
        try:
            if artefact.kind == "checkpoint":
                name, meta = _family(artefact.identity), artefact.meta
            else:
                train = artefact.identity["train"]
                name = _family(train) + text_of(artefact.identity["args"])
                meta = artefact.meta
                if "device" not in meta:  # then as its checkpoint
                    made = self.stock.every("checkpoint").get(key_of(train))
                    meta = made.meta if made else {}
        except (KeyError, TypeError, AttributeError):
            return  # made by something else than a run
        here = meta.get("device") == self.device and meta.get("threads") == self.threads
        if here and NEEDED[artefact.kind] <= artefact.meta.keys():
            yield name


def _family(train: Mapping[str, Any]) -> str:
    """Everything that a training's speed depends on, but for its length."""
    args = {key: value for key, value in train["args"].items() if key != LENGTH}
    data = train["data"]["dataset"], train["data"]["args"]
    return text_of([train["method"], train["supervision"], train["numerics"], args, data])


def _networks(args: Mapping[str, Any]) -> bool:
    """Whether more than one thing may be trained for some number of steps."""
    return any(key.endswith("_steps") for key in args)


def _shown(artefact: Artefact) -> int:
    """How many samples times levels are in an artefact of maps."""
    return int(artefact.meta["samples"]) * int(artefact.meta["levels"])


def _judged(identity: Mapping[str, Any]) -> str:
    """What the time of a judgement depends on."""
    try:
        maps = identity["maps"]
        samples = {part: (m["data"]["samples"], len(m["levels"])) for part, m in maps.items()}
    except (KeyError, TypeError, AttributeError):
        return ""  # made by something else than a run
    return text_of([samples, identity.get("protocol")])


def _guess(
    seconds: Sequence[float], sizes: Sequence[float], memory: Sequence[float], what: str
) -> Guess:
    plural = {"look": "looks"}.get(what, f"{what}s")
    count = len(seconds)
    return Guess(
        seconds=median(seconds) if seconds else None,
        bytes=round(median(sizes)) if sizes else None,
        memory=max(memory, default=None),
        source=f"{count} earlier {what if count == 1 else plural}" if count else "",
    )
