"""Time the pixel metrics of a stack of maps, against scikit-learn, a plain AUPRO loop and adeval.

The references take minutes for what takes a second here, so they get the first few maps only and
their seconds are multiplied: sorting takes a little more than linear time, so this favours them.
The results on the same few maps are compared too. One process, one CPU, interleaved rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import numpy as np

from ...engine.profiling.cost import PeakMemory, time_interleaved
from ..evaluation.metrics.connected_components import Array
from ..evaluation.metrics.pixel_scores import PixelScores
from ..evaluation.metrics.ranking import pixel_score_metrics
from ..evaluation.metrics.streaming_histogram import StreamingHistogram
from .inference import spread

REFERENCE_MAPS = 20
"""Maps that the references get."""
FPR_LIMIT = 0.30
REGION_CYCLE = 3
"""Of so many successive maps one is normal; the others have one region, two regions and so on."""


def measure_metrics(
    maps: int, *, side: int = 256, rounds: int = 3, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Measure the seconds for AUROC, AP, AUPRO at 0.30 and 0.05, best Dice, and IoU.

    scikit-learn computes AUROC, AP and the best F1. In the result, ratio: seconds of scikit-learn
    and the loop together, multiplied, over ours for all maps; ratio_of_few: without multiplication,
    all on the same few maps; of_adeval: our seconds over adeval's for all maps; adeval_off: the
    largest difference of its metrics from ours.

    maps, side: number of maps, and their sides in pixels
    machine: from `describe_machine`, of the CPU
    Raises ValueError if scikit-learn is not installed.

    >>> facts = measure_metrics(6, side=16, rounds=2, machine={})
    >>> facts["maps"], facts["few"], len(facts["seconds"]["all"])
    (6, 6, 2)
    """
    score, mask = synthetic_maps(maps, side)
    few = min(REFERENCE_MAPS, maps)
    subset = score[:few], mask[:few]
    with PeakMemory("cpu") as memory:
        pixel_score_metrics(PixelScores.from_maps(score, mask))
    workloads = (
        lambda: pixel_score_metrics(PixelScores.from_maps(score, mask)),
        lambda: binned_metrics(score, mask),
        lambda: pixel_score_metrics(PixelScores.from_maps(*subset)),
        lambda: sklearn_metrics(*subset),
        lambda: aupro_by_loop(*subset),
    )
    for workload in workloads[2:]:
        workload()  # what happens once only, imports and pages of memory, is not timed
    by_adeval = adeval_metrics(*subset)
    if by_adeval is not None:
        workloads = (*workloads, lambda: adeval_metrics(score, mask))
    seconds = [np.array(values) for values in time_interleaved(workloads, rounds, "cpu")]
    whole, binned, part, sklearn, loop, *adeval = seconds
    ours = pixel_score_metrics(PixelScores.from_maps(*subset))
    theirs = {**sklearn_metrics(*subset), "aupro30": aupro_by_loop(*subset)}
    factor = maps / few
    return {
        "schema": 1,
        "what": "metrics",
        "size": side,
        "maps": maps,
        "few": few,
        "machine": machine,
        "seconds": spread(whole.tolist()),
        "binned_seconds": spread(binned.tolist()),
        "sklearn_seconds": spread((factor * sklearn).tolist()),
        "loop_seconds": spread((factor * loop).tolist()),
        "ratio": spread((factor * (sklearn + loop) / whole).tolist()),
        "ratio_of_few": spread(((sklearn + loop) / part).tolist()),
        "largest_difference": _largest_difference(theirs, ours),
        "memory_of_maps": memory.peak * 1e6 / score.nbytes,
        "adeval_seconds": spread(adeval[0].tolist()) if adeval else None,
        "of_adeval": spread((whole / adeval[0]).tolist()) if adeval else None,
        "adeval_off": _largest_difference(by_adeval, ours) if by_adeval else None,
    }


def synthetic_maps(maps: int, side: int) -> tuple[Array, Array]:
    """Return scores float32 and masks bool, (maps, side, side) each, the same at every call.

    Noise that is higher in a region or two, by an amount that differs between maps.

    >>> from adbench.benchmark.speed.metrics import synthetic_maps
    >>> score, mask = synthetic_maps(3, 16)
    >>> score.shape, mask.any((1, 2)).tolist()
    ((3, 16, 16), [False, True, True])
    """
    rng = np.random.Generator(np.random.PCG64(0))
    score = rng.standard_normal((maps, side, side), np.float32)
    mask = np.zeros(score.shape, bool)
    for k in range(maps):
        for _ in range(k % REGION_CYCLE):
            y, x = rng.integers(0, side - side // 4, 2)
            height, width = rng.integers(2, max(3, side // 4), 2)
            mask[k, y : y + height, x : x + width] = True
        score[k][mask[k]] += np.float32(rng.uniform(0.5, 3))
    return score, mask


def binned_metrics(score: Array, mask: Array) -> dict[str, tuple[float, float]]:
    """Return bounds of the metrics from a histogram, as used with too many pixels to sort.

    >>> from adbench.benchmark.speed.metrics import binned_metrics, synthetic_maps
    >>> low, high = binned_metrics(*synthetic_maps(3, 16))["auroc"]
    >>> 0.5 < low <= high < 1
    True
    """
    pixels, histogram = PixelScores.from_maps(score, mask), StreamingHistogram()
    histogram.add(pixels.score, pixels.truth, pixels.component_share)
    return histogram.bounds()


def adeval_metrics(score: Array, mask: Array) -> dict[str, float] | None:
    """Return auroc, ap and aupro30 by adeval, which counts scores in bins; None without adeval.

    score, mask: (N, height, width)

    >>> score, mask = synthetic_maps(6, 16)
    >>> adeval, sklearn = adeval_metrics(score, mask), sklearn_metrics(score, mask)
    >>> abs(adeval["auroc"] - sklearn["auroc"]) < 0.01
    True
    """
    # adeval 1.1.0 calls it by the name that NumPy 2.4 dropped
    with patch.object(np, "trapz", np.trapezoid, create=True):
        try:
            from adeval import EvalAccumulator
        except ImportError:
            return None
        accumulator = EvalAccumulator(float(score.min()), float(score.max()))
        accumulator.add_anomap_batch(score, mask.astype(np.uint8))
        summary = accumulator.summary()
    values = summary["p_auroc"], summary["p_aupr"], summary["p_aupro"]
    return dict(zip(("auroc", "ap", "aupro30"), map(float, values), strict=True))


def sklearn_metrics(score: Array, mask: Array) -> dict[str, float]:
    """Return auroc, ap and the best dice by scikit-learn.

    Raises ValueError if it is not installed.

    >>> import numpy as np
    >>> from adbench.benchmark.speed.metrics import sklearn_metrics
    >>> sklearn_metrics(np.array([0.1, 0.9]), np.array([False, True]))
    {'auroc': 1.0, 'ap': 1.0, 'dice': 1.0}
    """
    try:
        from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
    except ImportError:
        raise ValueError(
            "--metrics measures against scikit-learn, which is not installed: "
            "pip install scikit-learn"
        ) from None
    flat, truth = score.ravel(), mask.ravel()
    precision, recall, _ = precision_recall_curve(truth, flat)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return {
        "auroc": float(roc_auc_score(truth, flat)),
        "ap": float(average_precision_score(truth, flat)),
        "dice": float(f1.max()),
    }


def aupro_by_loop(score: Array, mask: Array) -> float:
    """AUPRO up to FPR_LIMIT by its definition, for maps and masks (N, H, W).

    Map by map and region by region every pixel gets its share of its region; then all pixels are
    sorted, and the curve is integrated.

    >>> import numpy as np
    >>> from adbench.benchmark.speed.metrics import aupro_by_loop
    >>> aupro_by_loop(np.array([[[3.0, 1.0, 2.0]]]), np.array([[[True, False, False]]]))
    1.0
    """
    from scipy import ndimage

    share, regions = np.zeros(score.shape), 0
    for shares, picture in zip(share, mask, strict=True):
        labels = np.zeros(picture.shape, np.int32)
        ndimage.label(picture, np.ones((3, 3)), labels)
        for k in range(1, int(labels.max()) + 1):
            region = labels == k
            shares[region] = 1 / region.sum()
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
