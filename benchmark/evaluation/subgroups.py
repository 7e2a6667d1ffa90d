"""Metrics of groups of people or devices, by metadata such as age, sex, scanner or site, and the
largest gap between two of them.

A subgroup is compared within itself: its abnormal against its normal samples, at the threshold that
all share. A field of metadata is a tag that normal samples have, too (the kind of a lesion is none:
it is under `strata`). Numbers are binned by quantiles.

Letters: N samples, P pixels within the regions of interest, B replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from .metrics.connected_components import Array
from .metrics.pixel_scores import SelectedPixels
from .metrics.ranking import image_metrics, pooled_overlap
from .operating_point import OperatingPoint
from .statistics.bootstrap import (
    Resamples,
    bootstrap_image_metrics,
    bootstrap_overlap_metrics,
    effective_clusters,
    expanded_level,
    percentile_interval,
)
from .statistics.histogram_bootstrap import bootstrap_ranking_metrics

SUBGROUP_METRICS = ("image_auroc", "pixel_ap", "pixel_dice", "healthy_fp")

MAX_SUBGROUPS = 8
"""Values of a field beyond which its words name samples, not groups of them."""

MAX_FIELDS = 8
"""Fields that are looked at, in the order of their names."""

NUMBER_BINS = 3
"""Subgroups of a number: of about equally many patients."""

MAX_NUMBERS = 5
"""Different numbers up to which each is a subgroup of its own, such as a grade or a field strength.
"""


def subgroup_metrics(point: OperatingPoint) -> dict[str, dict[str, Any]]:
    """Return, by field of metadata, the metrics of every subgroup and the largest gaps, as JSON.

    subgroups: by name: n samples, n_abnormal, n_groups (patients), and metrics as in a record, each
        with value, low and high
    gaps: by metric, the two subgroups that differ most, `higher` and `lower`, their difference with
        its interval, and how many pairs there are. All replicates are of the same draws of
        patients, and the interval is that of one of so many pairs (Bonferroni)

    Subgroups count that have normal and abnormal samples; a field without two of them is left out.

    point: the test split at one noise level and threshold

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.operating_point import OperatingPoint
    >>> from adbench.benchmark.evaluation.build_ground_truth import build_ground_truth
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.protocol import Protocol
    >>> keys, label = [f"patient {i}" for i in range(40)], np.arange(40) % 2 == 1
    >>> tags = [{"sex": "F" if i < 20 else "M"} for i in range(40)]
    >>> score = np.where(np.arange(40) < 20, label, 0.5)  # of M all alike
    >>> split = Predictions(keys, keys, label, None, None, None, tags, score[None], None)
    >>> level = build_ground_truth(split, Protocol()).at_level(0)
    >>> fields = subgroup_metrics(OperatingPoint(level, 0, None))
    >>> gap = fields["sex"]["gaps"]["image_auroc"]
    >>> gap["higher"], gap["lower"], gap["value"]
    ('F', 'M', 0.5)
    """
    truth = point.level_predictions.ground_truth
    split = truth.predictions
    resamples = Resamples.from_groups(split.groups)
    result = {}
    for name, members in list(metadata_fields(split.tags, split.groups, truth.label).items()):
        subgroups, replicates = {}, {}
        for value, selected in members.items():
            values = _metrics(point, selected)
            replicates[value] = _replicates(point, selected, resamples)
            groups = [split.groups[i] for i in np.flatnonzero(selected)]
            clusters = effective_clusters(groups, truth.label[selected])
            subgroups[value] = {
                "n": int(selected.sum()),
                "n_abnormal": int((truth.label & selected).sum()),
                "n_groups": len(set(groups)),
                "clusters": clusters,
                "metrics": {
                    metric: _with_interval(number, replicates[value].get(metric), clusters)
                    for metric, number in values.items()
                },
            }
        gaps = {
            metric: gap
            for metric in SUBGROUP_METRICS
            if (gap := _largest_gap(metric, subgroups, replicates)) is not None
        }
        for subgroup in subgroups.values():
            del subgroup["clusters"]
        result[name] = {"subgroups": subgroups, "gaps": gaps}
    return result


def metadata_fields(
    tags: Sequence[Mapping[str, str]], groups: Sequence[str], label: Array
) -> dict[str, dict[str, Array]]:
    """Return, by field and subgroup, which samples are in it, (N,) bool.

    tags, groups, label: (N,) of each sample. A sample without a tag is in none of its subgroups.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.subgroups import metadata_fields
    >>> tags = [{"age": str(age)} for age in (20, 30, 40, 50, 60, 70) * 2]
    >>> label = np.arange(12) >= 6
    >>> fields = metadata_fields(tags, [f"patient {i}" for i in range(12)], label)
    >>> {name: int(members.sum()) for name, members in fields["age"].items()}
    {'below 40': 4, '40 to 60': 4, '60 and above': 4}
    """
    label = np.asarray(label, bool)
    names = sorted({name for i in np.flatnonzero(~label).tolist() for name in tags[i]})
    fields = {}
    for name in names:
        values = [tag.get(name, "").strip() for tag in tags]
        members = _number_bins(values, groups) if _are_numbers(values) else _words(values)
        whole = {
            value: selected
            for value, selected in members.items()
            if (selected & label).any() and (selected & ~label).any()
        }
        if len(whole) > 1:
            fields[name] = whole
        if len(fields) == MAX_FIELDS:
            break
    return fields


def _are_numbers(values: Sequence[str]) -> bool:
    present = {value for value in values if value}
    return len(present) > MAX_NUMBERS and all(_is_number(value) for value in present)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _words(values: Sequence[str]) -> dict[str, Array]:
    words = sorted({value for value in values if value})
    if len(words) > MAX_SUBGROUPS:
        return {}
    return {word: np.array([value == word for value in values]) for word in words}


def _number_bins(values: Sequence[str], groups: Sequence[str]) -> dict[str, Array]:
    """Bins between quantiles over groups (patients), each of which counts once."""
    numbers = np.array([float(value) if value else np.nan for value in values])
    of_group: dict[str, list[float]] = {}
    for group, number in zip(groups, numbers.tolist(), strict=True):
        if not np.isnan(number):
            of_group.setdefault(group, []).append(number)
    ordered = sorted(float(np.mean(numbers)) for numbers in of_group.values())
    edges = [ordered[len(ordered) * k // NUMBER_BINS] for k in range(1, NUMBER_BINS)]
    edges = sorted({edge for edge in edges if edge > ordered[0]})
    bins: dict[str, Array] = {}
    bounds = [-np.inf, *edges, np.inf]
    for low, high in pairwise(bounds):
        text = f"{low:g} to {high:g}"
        if np.isinf(low):
            text = f"below {high:g}"
        elif np.isinf(high):
            text = f"{low:g} and above"
        bins[text] = (numbers >= low) & (numbers < high)
    return bins


def _metrics(point: OperatingPoint, selected: Array) -> dict[str, float | None]:
    predictions = point.level_predictions
    label = predictions.ground_truth.label[selected]
    values: dict[str, float | None] = dict.fromkeys(SUBGROUP_METRICS)
    values["image_auroc"] = image_metrics(predictions.score[selected], label)["auroc"]
    if predictions.pixels is not None:
        ranking = predictions.pixels.ranking(selected)
        values["pixel_ap"] = None if ranking is None else ranking.ap()
    if point.overlaps is not None:
        overlaps = point.overlaps[selected]
        normal, _, false, _ = overlaps[~label].sum(0).tolist()
        values["pixel_dice"] = pooled_overlap(overlaps)["dice"]
        values["healthy_fp"] = false / normal if normal else None
    return values


def _replicates(point: OperatingPoint, selected: Array, resamples: Resamples) -> dict[str, Array]:
    """The metrics of a subgroup on every resample of all groups, (B,) each."""
    predictions = point.level_predictions
    label = predictions.ground_truth.label[selected]
    part_of = Resamples(resamples.groups, resamples.group_index[selected], resamples.counts)
    image = bootstrap_image_metrics(predictions.score[selected], label, part_of)
    replicates = {"image_auroc": image["auroc"]}
    if predictions.pixels is None:
        return replicates
    pixels = SelectedPixels(predictions.pixels, selected)
    if any(block.truth.any() for block in pixels.blocks()):
        ranked = bootstrap_ranking_metrics(pixels, part_of.group_index, part_of.counts)
        replicates["pixel_ap"] = ranked["ap"]
        if point.overlaps is not None:
            overlap = bootstrap_overlap_metrics(point.overlaps[selected], part_of, label)
            replicates |= {"pixel_dice": overlap["dice"], "healthy_fp": overlap["healthy_fp"]}
    return replicates


def _with_interval(
    value: float | None, replicates: Array | None, clusters: float
) -> dict[str, float | None]:
    interval = None
    if value is not None and replicates is not None:
        interval = percentile_interval(replicates, clusters)
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high}


def _largest_gap(
    metric: str,
    subgroups: Mapping[str, Mapping[str, Any]],
    replicates: Mapping[str, Mapping[str, Array]],
) -> dict[str, Any] | None:
    values = {
        name: value
        for name, subgroup in subgroups.items()
        if (value := subgroup["metrics"][metric]["value"]) is not None
    }
    pairs = list(combinations(values, 2))
    if not pairs:
        return None
    higher, lower = max(
        (sorted(pair, key=lambda name: -values[name]) for pair in pairs),
        key=lambda pair: values[pair[0]] - values[pair[1]],
    )
    gap: dict[str, Any] = {
        "higher": higher,
        "lower": lower,
        "value": values[higher] - values[lower],
        "low": None,
        "high": None,
        "pairs": len(pairs),
    }
    both = [replicates[name].get(metric) for name in (higher, lower)]
    if both[0] is not None and both[1] is not None:
        difference = both[0] - both[1]
        clusters = min(subgroups[name]["clusters"] for name in (higher, lower))
        defined = difference[~np.isnan(difference)]
        if difference.size and defined.size >= 0.95 * difference.size:
            outside = 50 * expanded_level(0.05 / len(pairs), clusters)
            low, high = np.percentile(defined, (outside, 100 - outside))
            gap |= {"low": float(low), "high": float(high)}
    return gap
