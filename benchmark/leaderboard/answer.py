"""The answer of a leaderboard in words: which method is best, whether the difference is real, and
what it costs; from the same numbers as its table.

A method that was trained with several seeds counts once, by its mean. The best method is compared
with the best baseline (without one, with the second best) by the paired 95 % interval of their
difference, as `adbench compare` does; its p-value is of this pair alone, where the table corrects
for all methods that it compares with the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..evaluation.sample_results import SampleResultsError
from .entry import Entry
from .metric_names import METRIC_NAMES
from .pairwise import ALIKE, BETTER, PairedComparison, PairError, compare_pair, sample_results_of
from .records import metric_value
from .seed_groups import SeedGroup, ranked_methods
from .text import interval_text, number_text


def answer_text(entries: Sequence[Entry], metric: str, folder: Path | None = None) -> str:
    """The answer of a leaderboard, one to three sentences; empty without any result.

    entries: of the leaderboard      metric: what it is sorted by
    folder: of the results, where `samples` lies

    >>> from adbench.benchmark.leaderboard.answer import answer_text
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> print(answer_text(example_leaderboard().done, "pixel_ap"))
    AnoDDPM has the highest pixel AP (0.455 [0.405, 0.505]); whether it is better than pDDPM, the
    second best, is unknown: no resamples of pixel AP are stored; 250 network calls an image; one
    seed. By image AUROC AnoDDPM is best too (0.900).
    """
    done = [entry for entry in entries if entry.record["status"] == "ok"]
    ranked = ranked_methods(done, metric)
    if not ranked:
        return ""
    title = METRIC_NAMES.get(metric, metric)
    best = ranked[0]
    method = next((each for each in ranked if not each.baseline), best)
    baseline = next((each for each in ranked if each.baseline), None)
    if best.baseline and method is not best:
        first = (
            f"No method is above the baselines: {best.method_name} has the highest {title} "
            f"({_value_text(best, metric)}), the best method {method.method_name} "
            f"({_value_text(method, metric)})"
        )
    else:
        name = f"The baseline {best.method_name}" if best.baseline else best.method_name
        first = f"{name} has the highest {title} ({_value_text(best, metric)})"
    parts = [first]
    rival, word = (baseline, "the baseline ") if baseline else (None, "")
    if rival is None and len(ranked) > 1:
        rival, word = ranked[1], ""
    if rival is not None and rival is not method:
        after = "" if rival.baseline else ", the second best,"
        parts.append(
            _difference_text(method, rival, metric, f"{word}{rival.method_name}", after, folder)
        )
    calls = {metric_cost(entry) for entry in method.entries} - {None}
    if calls:
        parts.append(_calls_text(max(each for each in calls if each is not None)))
    seeds = len(method.entries)
    parts.append("one seed" if seeds == 1 else f"{seeds} seeds")
    sentences = ["; ".join(parts) + "."]
    if partial := done[0].record["partial"]:
        sentences.insert(0, f"Trial run on at most {partial} samples of each split: do not quote.")
    other = "image_auroc" if metric == "pixel_ap" else "pixel_ap"
    if len(ranked) > 1 and (by_other := ranked_methods(done, other)):
        top = by_other[0]
        same = " too" if top.method_name == best.method_name else ""
        name = f"the baseline {top.method_name}" if top.baseline else top.method_name
        value = number_text(top.value(other))
        sentences.append(f"By {METRIC_NAMES[other]} {name} is best{same} ({value}).")
    return " ".join(sentences)


def metric_cost(entry: Entry) -> float | None:
    """Network evaluations per image of an entry; None where they were not counted.

    >>> from adbench.benchmark.leaderboard.answer import metric_cost
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> metric_cost(example_leaderboard().done[0])
    250.0
    """
    return (entry.record.get("cost") or {}).get("evaluations_per_image")


def _value_text(method: SeedGroup, metric: str) -> str:
    """A value with its interval, or the mean over seeds with its range."""
    values, mean = method.values(metric), number_text(method.value(metric))
    if min(values) < max(values):
        text = f"mean {mean} over {len(values)} seeds"
        return f"{text}, {number_text(min(values))} to {number_text(max(values))}"
    record = method.entries[0].record
    interval = interval_text(*(metric_value(record, metric, part) for part in ("low", "high")))
    seeds = f"in each of {len(values)} seeds" if len(values) > 1 else ""
    return " ".join(part for part in (mean, interval, seeds) if part)


def _calls_text(calls: float) -> str:
    return "no call of a trained network" if calls == 0 else f"{calls:,.4g} network calls an image"


def _difference_text(
    a: SeedGroup, b: SeedGroup, metric: str, name: str, after: str, folder: Path | None
) -> str:
    """Whether a differs from b, whose name is given, in words."""
    difference = paired_difference_of(a, b, metric, folder)
    if isinstance(difference, str):
        return f"whether it is better than {name}{after} is unknown: {difference}"
    p = "" if difference.p is None else f" ({p_text(difference.p)} of this pair alone)"
    if difference.verdict == ALIKE:
        return f"it is not distinguishable from {name}{after.rstrip(',')}{p}"
    word = "better" if difference.verdict == BETTER else "worse"
    return f"it is {word} than {name}{after.rstrip(',')}{p}"


def paired_difference_of(
    a: SeedGroup, b: SeedGroup, metric: str, folder: Path | None = None
) -> PairedComparison | str:
    """The paired comparison of two methods over their seeds, or why there is none, in words.

    >>> from adbench.benchmark.leaderboard.answer import paired_difference_of
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.leaderboard.seed_groups import ranked_methods
    >>> a, b = ranked_methods(example_leaderboard().done, "image_auroc")
    >>> paired_difference_of(a, b, "image_auroc").verdict
    'better'
    """
    try:
        of_a, of_b = (
            [sample_results_of(entry.record, folder, [metric]) for entry in each.entries]
            for each in (a, b)
        )
        missing = f"no resamples of {METRIC_NAMES.get(metric, metric)} are stored"
        if None in of_a or None in of_b:
            return missing
        whole_a, whole_b = ([r for r in results if r is not None] for results in (of_a, of_b))
        if any(metric not in results.replicates for results in (*whole_a, *whole_b)):
            return missing
        difference = compare_pair(whole_a, whole_b, metric)
    except (PairError, SampleResultsError):
        return "the results of single samples are damaged, or are of other samples"
    return "too few groups" if difference.low is None else difference


def p_text(p: float) -> str:
    """A p-value in words, with two digits.

    >>> from adbench.benchmark.leaderboard.answer import p_text
    >>> p_text(0.8), p_text(0.0312), p_text(0.0002)
    ('p = 0.80', 'p = 0.031', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.2g}"
