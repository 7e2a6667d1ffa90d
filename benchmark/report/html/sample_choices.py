"""Which samples the page shows first: worst misses, worst false alarms, disagreements, or a tag.

Scores of two methods have no common scale, so what is compared is the rank of a sample among all
test samples of the board, 1 the most anomalous; the disagreement is from the highest rank that any
method gives it to the lowest. Baselines do not count there, where there are two methods that are
none: the largest disagreement would always be with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...evaluation.metrics.connected_components import Array
from ...evaluation.sample_results import SampleResults
from ...leaderboard.entry import Entry
from .chart import letter

MAX_TAGS = 40
"""Tags to choose by, at most: the most frequent ones."""


class SampleChoice(NamedTuple):
    """A way to choose samples: its group and name in the list, and indices of samples, in order.

    >>> from adbench.benchmark.report.html.sample_choices import SampleChoice
    >>> SampleChoice("", "all samples", [0, 1]).name
    'all samples'
    """

    group: str
    name: str
    rows: list[int]


def score_ranks(score: Array) -> Array:
    """Return the rank of each of N scores, 1 for the highest; equal scores share their mean rank.

    >>> import numpy as np
    >>> from adbench.benchmark.report.html.sample_choices import score_ranks
    >>> score_ranks(np.array([0.2, 0.9, 0.2])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(-score, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # scipy.stats takes 1 s to import


def sample_choices(
    keys: Sequence[str],
    tags: Mapping[str, Mapping[str, str]],
    results: Mapping[int, SampleResults],
    entries: Sequence[Entry],
) -> list[SampleChoice]:
    """Return the ways to choose among samples; the first holds all of them.

    keys: of the samples      tags: of each of them
    results: sample results, by index of the entry, whose name tells it apart

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.leaderboard.pairwise import sample_results_of
    >>> from adbench.benchmark.report.html.sample_choices import sample_choices
    >>> entries = example_leaderboard().done
    >>> results = {k: sample_results_of(entry.record) for k, entry in enumerate(entries)}
    >>> keys = ["patient 00", "patient 17", "patient 30"]
    >>> tags = {"patient 17": {"size": "small"}}
    >>> for choice in sample_choices(keys, tags, results, entries):
    ...     print(choice.name, choice.rows)
    all samples [0, 1, 2]
    abnormal samples [0, 1]
    normal samples [2]
    largest disagreements [1, 0, 2]
    worst misses of A AnoDDPM [0, 1]
    worst misses of B pDDPM [1, 0]
    worst false alarms of A AnoDDPM [2]
    worst false alarms of B pDDPM [2]
    size: small [1]
    """
    if not keys:
        return []
    choices = [SampleChoice("", "all samples", list(range(len(keys))))]
    ranks = {k: dict(zip(r.keys, score_ranks(r.score), strict=True)) for k, r in results.items()}
    labels: dict[str, bool] = {}
    for of_entry in results.values():
        labels |= zip(of_entry.keys, of_entry.label.astype(bool).tolist(), strict=True)
    for label, name in ((True, "abnormal samples"), (False, "normal samples")):
        rows = [i for i, key in enumerate(keys) if labels.get(key) is label]
        choices += [SampleChoice("", name, rows)] if rows else []
    disagreements = _disagreements(keys, ranks, entries)
    if disagreements:
        choices.append(SampleChoice("", "largest disagreements", disagreements))
    for label, name, sign in ((True, "worst misses", -1), (False, "worst false alarms", 1)):
        for k, by_key in ranks.items():
            rows = [i for i, key in enumerate(keys) if labels.get(key) is label and key in by_key]
            rows.sort(key=lambda i: sign * by_key[keys[i]])
            title = f"{name} of {letter(k)} {entries[k].name}"
            choices += [SampleChoice(name.capitalize(), title, rows)] if rows else []
    by_tag: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(keys):
        for tag, value in tags.get(key, {}).items():
            by_tag.setdefault((str(tag), str(value)), []).append(i)
    frequent = sorted(by_tag.items(), key=lambda item: -len(item[1]))[:MAX_TAGS]
    choices += [
        SampleChoice("Tags", f"{tag}: {value}", rows) for (tag, value), rows in sorted(frequent)
    ]
    return choices


def _disagreements(
    keys: Sequence[str], ranks: Mapping[int, Mapping[str, float]], entries: Sequence[Entry]
) -> list[int]:
    """Samples that methods rank most differently, the largest difference first."""
    compared = [k for k in ranks if not entries[k].record["method"]["baseline"]]
    compared = compared if len(compared) > 1 else list(ranks)
    compared = [k for k in compared if ranks[k].keys() == ranks[compared[0]].keys()]
    spread: list[tuple[float, int]] = []
    for i, key in enumerate(keys):
        of_sample = [ranks[k][key] for k in compared if key in ranks[k]]
        if len(of_sample) > 1 and max(of_sample) > min(of_sample):
            spread.append((min(of_sample) - max(of_sample), i))
    return [i for _, i in sorted(spread)]
