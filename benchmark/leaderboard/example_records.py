"""Records with made-up numbers that follow from one another: for documentation, and for trying out
what reads records without running anything.

The method of an example has detected some of 20 lesions in 40 test samples of one patient each, 20
of them abnormal. In a sample that it detects it calls 20 of 100 pixels positive, and half of them
are in the mask; elsewhere it calls none positive.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from . import evaluation_schema as evaluation
from . import record_schema as schema
from .leaderboard import Leaderboard, build_leaderboards
from .records import Record, record_seal

LESIONS = 20
"""Abnormal samples, of one lesion each; there are as many normal ones."""

LESION_PIXELS, IMAGE_PIXELS = 10, 100
"""Pixels of a lesion, and of a sample."""

LEVELS = {100: 0.8, 250: 1.0, 500: 0.9}
"""Noise levels, and what share of the metrics at the best level is reached at each."""


def example_record(
    label: str = "AnoDDPM",
    detected: int = 18,
    *,
    evaluations: float = 250.0,
    dataset: str = "brats",
    seed: int = 0,
    baseline: bool = False,
) -> dict[str, Any]:
    """A record of status `ok` with every field that a report shows, as `read_records` returns it.

    label: of the method; its name is that in lower case
    detected: of 20 lesions. Image AUROC and lesion sensitivity are this share, s; pixel AP is
        s / 2 + (1 - s) / 20, for the pixels called positive have a precision of 1/2, and those
        called negative are in one tie down to the prevalence, 1/20
    evaluations: of the network, per image

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> record = example_record("AnoDDPM", 18)
    >>> record["metrics"]["image_auroc"]["value"], record["metrics"]["pixel_ap"]["value"]
    (0.9, 0.455)
    >>> record["file"], record["samples"]["label"].count(1), record["level"]["chosen"]
    ('anoddpm-brats-0.json', 20, 250)
    """
    share = detected / LESIONS
    positive = 2 * LESION_PIXELS * detected
    overlap, abnormal = LESION_PIXELS * detected, LESION_PIXELS * LESIONS
    metrics = {
        "image_auroc": share,
        "pixel_ap": round(share / 2 + (1 - share) * abnormal / (2 * LESIONS * IMAGE_PIXELS), 6),
        "pixel_dice": 2 * overlap / (positive + abnormal),
        "pixel_iou": overlap / (positive + abnormal - overlap),
        "healthy_fp": 0.0,
        "lesion_sensitivity": share,
    }
    prevalence = abnormal / (2 * LESIONS * IMAGE_PIXELS)
    record = schema.ResultRecord(
        schema=2,
        reason=None,
        method=schema.MethodRecord(label.lower(), label, baseline, {"steps": 700}, "normal"),
        dataset=schema.DatasetRecord(dataset, {}, "f00d", synthetic=False),
        protocol=schema.ProtocolRecord("abcd1234", "Level chosen on validation."),
        profile="tiny",
        seed=seed,
        partial=None,
        level=evaluation.LevelRecord(chosen=250, rule="val", published=250, oracle=250),
        threshold=evaluation.ThresholdRecord("healthy@5%", 0.5),
        metrics={
            name: evaluation.MetricRecord(value, max(0.0, value - 0.05), min(1.0, value + 0.05))
            for name, value in metrics.items()
        },
        reference=evaluation.ReferenceRecord(prevalence, 2 * prevalence / (1 + prevalence), 0.5),
        counts=evaluation.CountRecord(2 * LESIONS, LESIONS, 2 * LESIONS, val=20, calibration=20),
        cost=schema.CostRecord(
            train_steps=700,
            parameters=690_000,
            evaluations_per_image=evaluations,
            gflops_per_image=0.2 * evaluations,
            train_seconds=65.0,
            seconds_per_image=evaluations / 1000,
            peak_memory_mb=512.0,
        ),
        sweep={str(level): _sweep(metrics, part) for level, part in LEVELS.items()},
        strata={
            "size=large": evaluation.StratumRecord(LESIONS // 2, image_auroc=min(1.0, 2 * share)),
            "size=small": evaluation.StratumRecord(
                LESIONS // 2, image_auroc=max(0.0, 2 * share - 1)
            ),
        },
        lesions=_lesions(detected),
        samples=_samples(detected),
        device="cpu",
        threads=2,
    )
    values = msgspec.to_builtins(record)
    values["seal"] = record_seal(values)
    return values | {"file": f"{label.lower()}-{dataset}-{seed}.json"}


def _sweep(metrics: dict[str, float], part: float) -> evaluation.SweepRecord:
    """Pixel AP and image AUROC at a level where this part of them is reached."""
    values: dict[str, float | None] = {
        name: metrics[name] * part for name in ("image_auroc", "pixel_ap")
    }
    return evaluation.SweepRecord(test=values, val=values)


def _lesions(detected: int) -> evaluation.LesionRecord:
    """Half of the lesions are large, in mm², and these are detected first."""
    half = LESIONS // 2
    large, small = min(detected, half), max(detected - half, 0)
    bins = [
        evaluation.LesionBin(0, 10, half, small, small / half),
        evaluation.LesionBin(10, None, half, large, large / half),
    ]
    share = detected / LESIONS
    froc = [
        evaluation.FrocPoint(0.9, 0.1, share / 2),
        evaluation.FrocPoint(0.5, 1.0, share),
    ]
    return evaluation.LesionRecord(LESIONS, "mm²", bins, froc, false_size=0.0)


def _samples(detected: int) -> evaluation.SampleRecord:
    """Abnormal samples first: detected ones score above all normal ones, the others below."""
    names = [f"patient {i:02d}" for i in range(2 * LESIONS)]
    hits = [i < detected for i in range(LESIONS)]
    scores = [100.0 + i if hit else -1.0 - i for i, hit in enumerate(hits)]
    return evaluation.SampleRecord(
        key=names,
        group=names,
        label=[1 if i < LESIONS else 0 for i in range(2 * LESIONS)],
        score=[*scores, *map(float, range(LESIONS))],
        pixels=[IMAGE_PIXELS] * 2 * LESIONS,
        abnormal_pixels=[LESION_PIXELS] * LESIONS + [0] * LESIONS,
        positive_pixels=[2 * LESION_PIXELS * hit for hit in hits] + [0] * LESIONS,
        true_positive_pixels=[LESION_PIXELS * hit for hit in hits] + [0] * LESIONS,
    )


def example_records() -> list[dict[str, Any]]:
    """The records of two methods on one dataset: AnoDDPM detects 18 of 20 lesions with 250
    evaluations of its network per image, pDDPM detects 12 with 4.

    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> [record["method"]["label"] for record in example_records()]
    ['AnoDDPM', 'pDDPM']
    """
    return [
        example_record("AnoDDPM", 18, evaluations=250.0),
        example_record("pDDPM", 12, evaluations=4.0),
    ]


def example_leaderboard() -> Leaderboard:
    """The leaderboard of `example_records`, AnoDDPM before pDDPM.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> [(entry.rank, entry.name, entry.value("pixel_ap")) for entry in example_leaderboard().done]
    [(1, 'AnoDDPM', 0.455), (2, 'pDDPM', 0.32)]
    """
    (leaderboard,) = build_leaderboards(example_records())
    return leaderboard


def write_example_records(folder: str | Path, records: Sequence[Record]) -> None:
    """Write records to the folder `records` of a folder of results, as a run does.

    >>> from adbench.benchmark.leaderboard.example_records import (
    ...     example_records, write_example_records)
    >>> from adbench.benchmark.leaderboard.records import read_records
    >>> write_example_records("results", example_records())
    >>> [record["file"] for record in read_records(Path("results/records"))]
    ['anoddpm-brats-0.json', 'pddpm-brats-0.json']
    """
    target = Path(folder, "records")
    target.mkdir(parents=True, exist_ok=True)
    for record in records:
        content = {key: value for key, value in record.items() if key != "file"}
        (target / str(record["file"])).write_text(json.dumps(content))
