"""How fast all pixel metrics of a stack of maps are, against scikit-learn and a plain AUPRO loop,
and against adeval where it is installed.

The rivals take minutes for what takes a second here, so they are given the first few maps alone and
their seconds are multiplied up: sorting is a little more than linear, so that favours them. What
all make of the same few maps is compared too. One process, one CPU, taking turns round by round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import numpy as np

from ...engine.profiling.cost import PeakMemory, time_interleaved
from ..evaluation.metrics.connected_components import Array
from ..evaluation.metrics.ranking import PixelScores, pixel_score_metrics
from ..evaluation.metrics.streaming_histogram import StreamingHistogram
from .inference import spread

REFERENCE_MAPS = 20
"""Maps that rivals are given."""
FPR_LIMIT = 0.30
REGION_CYCLE = 3
"""Every so many maps one is normal, the others have a region or two."""


def measure_metrics(
    maps: int, *, side: int = 256, rounds: int = 3, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """maps: how many, of side x side places     machine: from `speed.machine`, of the CPU

    Figures are AUROC, AP, AUPRO at 0.30 and 0.05, the best Dice with its threshold, and IoU; of
    scikit-learn AUROC, AP and the best F1. ratio: rivals' seconds, both together and multiplied up,
    over ours for all maps; ratio_of_few: with nothing multiplied, all on the same few; of_adeval:
    our seconds over adeval's, for all maps, and adeval_off how far its figures are from ours
    """
    score, mask = synthetic_maps(maps, side)
    few = min(REFERENCE_MAPS, maps)
    some = score[:few], mask[:few]
    with PeakMemory("cpu") as memory:
        pixel_score_metrics(PixelScores.from_maps(score, mask))
    works = (
        lambda: pixel_score_metrics(PixelScores.from_maps(score, mask)),
        lambda: binned_metrics(score, mask),
        lambda: pixel_score_metrics(PixelScores.from_maps(*some)),
        lambda: sklearn_metrics(*some),
        lambda: aupro_by_loop(*some),
    )
    for work in works[2:]:
        work()  # what is done once only, imports and pages of memory, is not timed
    stripped = adeval_metrics(*some)
    if stripped is not None:
        works = (*works, lambda: adeval_metrics(score, mask))
    times_of = [np.array(seconds) for seconds in time_interleaved(works, rounds, "cpu")]
    whole, bins, part, learn, loop, *adeval = times_of
    ours, theirs = (
        pixel_score_metrics(PixelScores.from_maps(*some)),
        {**sklearn_metrics(*some), "aupro30": aupro_by_loop(*some)},
    )
    times = maps / few
    return {
        "schema": 1,
        "what": "metrics",
        "size": side,
        "maps": maps,
        "few": few,
        "machine": machine,
        "seconds": spread(whole.tolist()),
        "binned_seconds": spread(bins.tolist()),
        "sklearn_seconds": spread((times * learn).tolist()),
        "loop_seconds": spread((times * loop).tolist()),
        "ratio": spread((times * (learn + loop) / whole).tolist()),
        "ratio_of_few": spread(((learn + loop) / part).tolist()),
        "largest_difference": _largest_difference(theirs, ours),
        "memory_of_maps": memory.peak * 1e6 / score.nbytes,
        "adeval_seconds": spread(adeval[0].tolist()) if adeval else None,
        "of_adeval": spread((whole / adeval[0]).tolist()) if adeval else None,
        "adeval_off": _largest_difference(stripped, ours) if stripped else None,
    }


def synthetic_maps(maps: int, side: int) -> tuple[Array, Array]:
    """Scores float32 and masks bool, (maps, side, side) each, the same every time: noise that is
    higher, by how much depends on the map, in a region or two."""
    rng = np.random.Generator(np.random.PCG64(0))
    score = rng.standard_normal((maps, side, side), np.float32)
    mask = np.zeros(score.shape, bool)
    for k in range(maps):
        for _ in range(k % REGION_CYCLE):
            y, x = rng.integers(0, side - side // 4, 2)
            high, wide = rng.integers(2, max(3, side // 4), 2)
            mask[k, y : y + high, x : x + wide] = True
        score[k][mask[k]] += np.float32(rng.uniform(0.5, 3))
    return score, mask


def binned_metrics(score: Array, mask: Array) -> dict[str, tuple[float, float]]:
    """The same figures from bins, as where there are too many places to sort."""
    places, stream = PixelScores.from_maps(score, mask), StreamingHistogram()
    stream.add(places.score, places.truth, places.component_share)
    return stream.bounds()


def adeval_metrics(score: Array, mask: Array) -> dict[str, float] | None:
    """auroc, ap and aupro30 by adeval, which counts in 1000 strips of equal height between the
    lowest and the highest score; None where it is not installed."""
    # adeval 1.1.0 calls it by the name that NumPy 2.4 dropped
    with patch.object(np, "trapz", np.trapezoid, create=True):
        try:
            from adeval import EvalAccumulator
        except ImportError:
            return None
        low, high = float(score.min()), float(score.max())
        count = EvalAccumulator(low, high)
        count.add_anomap_batch(score, mask.astype(np.uint8))
        found = count.summary()
    auroc, ap, aupro = (float(x) for x in (found["p_auroc"], found["p_aupr"], found["p_aupro"]))
    return {"auroc": auroc, "ap": ap, "aupro30": aupro}


def sklearn_metrics(score: Array, mask: Array) -> dict[str, float]:
    """auroc, ap and dice by scikit-learn."""
    try:
        from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
    except ImportError:
        raise ValueError(
            "--metrics measures against scikit-learn, which is not installed: "
            "pip install scikit-learn"
        ) from None
    flat, truth = score.ravel(), mask.ravel()
    precision, recall, _ = precision_recall_curve(truth, flat)
    both = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return {
        "auroc": float(roc_auc_score(truth, flat)),
        "ap": float(average_precision_score(truth, flat)),
        "dice": float(both.max()),
    }


def aupro_by_loop(score: Array, mask: Array) -> float:
    """AUPRO up to LIMIT as it is defined: map by map and region by region every place is given its
    share of its region; then all places are sorted, and the curve is summed."""
    from scipy import ndimage

    share, regions = np.zeros(score.shape), 0
    for own, picture in zip(share, mask, strict=True):
        labels = np.zeros(picture.shape, np.int32)
        ndimage.label(picture, np.ones((3, 3)), labels)
        for k in range(1, int(labels.max()) + 1):
            region = labels == k
            own[region] = 1 / region.sum()
            regions += 1
    order = np.argsort(-score.ravel(), kind="stable")
    falling = score.ravel()[order]
    last = np.append(falling[1:] != falling[:-1], True)  # of equal scores
    normal = ~mask.ravel()[order]
    rate = np.append(0, (normal.cumsum() / normal.sum())[last])
    overlap = np.append(0, (share.ravel()[order].cumsum() / regions)[last])
    inside = int(np.searchsorted(rate, FPR_LIMIT, "right"))
    x = np.append(rate[:inside], FPR_LIMIT)
    y = np.append(overlap[:inside], np.interp(FPR_LIMIT, rate, overlap))
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / FPR_LIMIT)


def _largest_difference(theirs: Mapping[str, float], ours: Mapping[str, float | None]) -> float:
    return max(abs((ours[name] or 0) - value) for name, value in theirs.items())
