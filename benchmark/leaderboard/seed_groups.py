"""Methods of a leaderboard with all of their seeds: what figures, answers and rankings count once.

A method with one setting that was trained with several seeds is one entry of a figure: the mean of
its seeds. Its interval is the wider of the mean of the seeds' intervals, which cover the choice of
groups (patients, recordings), and Student's interval of the mean over seeds, for either hides what
the other holds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from .entry import Entry
from .metric_names import METRIC_RANGES
from .records import Record, metric_value


@dataclass(frozen=True)
class SeedGroup:
    """A method with one setting, by all of its seeds.

    name: that tells it apart from the others of the leaderboard
    entries: one a seed, in the seeds' order

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.leaderboard.seed_groups import group_seeds
    >>> (board,) = build_leaderboards([example_record(detected=n, seed=n) for n in (10, 20)])
    >>> (group,) = group_seeds(board.done)
    >>> group.name, group.seeds_text, group.values("image_auroc"), group.value("image_auroc")
    ('AnoDDPM', 'mean of 2 seeds', [0.5, 1.0], 0.75)
    """

    name: str
    entries: list[Entry]

    @property
    def method_name(self) -> str:
        """The name without the mark of a baseline, for sentences that say "the baseline" anyway."""
        return self.name.replace(" (baseline)", "")

    @property
    def baseline(self) -> bool:
        return bool(self.entries[0].record["method"]["baseline"])

    @property
    def seeds_text(self) -> str:
        """What its figures are means of, in words; empty for one seed."""
        count = len(self.entries)
        return f"mean of {count} seeds" if count > 1 else ""

    def values(self, metric: str) -> list[float]:
        """A metric of the seeds that have it."""
        return [v for entry in self.entries if (v := entry.value(metric)) is not None]

    def value(self, metric: str) -> float | None:
        """The mean of a metric over the seeds that have it; None where none has."""
        return self.mean(lambda record: metric_value(record, metric))

    def mean(self, figure: Callable[[Record], float | None]) -> float | None:
        """The mean of a figure of the records that have it; None where none has."""
        figures = [v for entry in self.entries if (v := figure(entry.record)) is not None]
        return fmean(figures) if figures else None

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval of the mean of a metric; None where a seed has none."""
        mean = mean_with_interval([entry.record for entry in self.entries], metric)
        if mean is None or mean.low is None or mean.high is None:
            return None
        return mean.low, mean.high


def group_seeds(entries: Sequence[Entry], metric: str = "") -> list[SeedGroup]:
    """The methods among entries, each with all of its seeds.

    entries: with results, as a leaderboard names them
    metric: by which they are sorted, best mean first, of equals baselines last, then those that
        lack it; empty for the order in which they occur

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.leaderboard.seed_groups import group_seeds
    >>> [group.name for group in group_seeds(example_leaderboard().done, "pixel_ap")]
    ['AnoDDPM', 'pDDPM']
    """
    members: dict[str, list[Entry]] = {}
    for entry in entries:
        members.setdefault(_setting(entry), []).append(entry)
    groups = [
        sorted(each, key=lambda entry: int(entry.record["seed"])) for each in members.values()
    ]
    named = [SeedGroup(name, group) for name, group in zip(_names(groups), groups, strict=True)]
    if not metric:
        return named

    def order(group: SeedGroup) -> tuple[bool, float, bool]:
        value = group.value(metric)
        return value is None, -(value or 0.0), group.baseline

    return sorted(named, key=order)


def ranked_methods(entries: Sequence[Entry], metric: str) -> list[SeedGroup]:
    """The methods that have the metric, the best mean first, of equals baselines last.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.leaderboard.seed_groups import ranked_methods
    >>> (board,) = build_leaderboards([example_record(detected=n, seed=n) for n in (10, 20)])
    >>> [(each.method_name, each.value("image_auroc"))
    ...  for each in ranked_methods(board.done, "image_auroc")]
    [('AnoDDPM', 0.75)]
    """
    return group_seeds([entry for entry in entries if entry.value(metric) is not None], metric)


def _setting(entry: Entry) -> str:
    """What seeds of one method share: all but the seed that may change its results."""
    record, method = entry.record, entry.record["method"]
    training = record.get("training") or {}
    setting = [method["label"], method["name"], method["args"], record["profile"]]
    setting += [training.get("fraction", 100), training.get("contamination", 0)]
    setting.append(bool(record.get("external")))
    return json.dumps(setting, sort_keys=True)


def _names(groups: Sequence[Sequence[Entry]]) -> list[str]:
    """A name for each group: of its first entry, with profile and seeds where names are equal."""
    names = [group[0].name for group in groups]
    for words in (
        [str(group[0].record["profile"]) for group in groups],
        ["seed " + " ".join(str(entry.record["seed"]) for entry in group) for group in groups],
    ):
        of_name: dict[str, set[str]] = {}
        for name, word in zip(names, words, strict=True):
            of_name.setdefault(name, set()).add(word)
        counts = Counter(names)
        names = [
            f"{name}, {word}" if counts[name] > 1 and len(of_name[name]) > 1 else name
            for name, word in zip(names, words, strict=True)
        ]
    return names


class MeanInterval(NamedTuple):
    """The mean of a metric over seeds, with its 95 % interval; None where there is none.

    >>> from adbench.benchmark.leaderboard.seed_groups import MeanInterval
    >>> MeanInterval(0.5, 0.4, 0.6, 1).low
    0.4
    """

    value: float
    low: float | None
    high: float | None
    seeds: int


def mean_with_interval(records: Sequence[Record], metric: str) -> MeanInterval | None:
    """The mean of a metric over records that differ in the seed alone; None where none has it.

    >>> from adbench.benchmark.leaderboard.seed_groups import mean_with_interval
    >>> records = [{"metrics": {"pixel_ap": {"value": v, "low": v - 0.1, "high": v + 0.2}}}
    ...            for v in (0.5, 0.5)]
    >>> [round(number, 3) for number in mean_with_interval(records, "pixel_ap")]
    [0.5, 0.4, 0.7, 2]
    """
    return mean_of_seeds(((record.get("metrics") or {}).get(metric) for record in records), metric)


def mean_of_seeds(
    figures: Iterable[Mapping[str, Any] | None], metric: str = ""
) -> MeanInterval | None:
    """The mean over seeds of figures with value, low and high, with its interval.

    With one seed, the interval is its own. There is none where a seed has none. Seeds without a
    value are left out; None where no seed has one.

    metric: in whose range the interval must lie

    >>> from adbench.benchmark.leaderboard.seed_groups import mean_of_seeds
    >>> mean_of_seeds([{"value": 0.5, "low": 0.4, "high": 0.6}, None])
    MeanInterval(value=0.5, low=0.4, high=0.6, seeds=1)
    """
    defined = [each for each in figures if each and _is_number(each.get("value"))]
    if not defined:
        return None
    values, lows, highs = (
        [float(each[part]) for each in defined if _is_number(each.get(part))]
        for part in ("value", "low", "high")
    )
    mean, count = fmean(values), len(values)
    if not len(lows) == len(highs) == count:
        return MeanInterval(mean, None, None, count)
    if count == 1:
        return MeanInterval(mean, lows[0], highs[0], count)
    below, above = mean - fmean(lows), fmean(highs) - mean
    from scipy.special import stdtrit  # Student's quantile; scipy.stats takes 1 s to import

    over_seeds = float(stdtrit(count - 1, 0.975)) * stdev(values) / math.sqrt(count)
    lowest, highest = METRIC_RANGES.get(metric, (-math.inf, math.inf))
    low = max(lowest, mean - max(below, over_seeds))
    return MeanInterval(mean, low, min(highest, mean + max(above, over_seeds)), count)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
