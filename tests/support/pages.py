"""A results folder with records, sample results and contact sheets of made-up maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adbench.benchmark.evaluation.sample_results import SampleResults, write_sample_results
from adbench.benchmark.figures.contact_sheet import write_contact_sheet
from adbench.benchmark.figures.sample_sheet import DisplayedSample
from adbench.benchmark.leaderboard.example_records import example_record, write_example_records
from adbench.benchmark.leaderboard.records import record_seal

METHODS = (
    ("AnoDDPM", 18, 250.0, False),
    ("pDDPM", 14, 4.0, False),
    ("Template z", 15, 0.0, True),
)
SIDE, LEVELS, CHOSEN = 24, (100, 250, 500), 250
SYNTHETIC_ARGUMENTS = {"preset": "demo", "modalities": "flair", "seed": 0, "size": None}


def write_results(
    out: Path, datasets: Sequence[str] = ("synthbrain",), seeds: Sequence[int] = (0,)
) -> list[dict[str, Any]]:
    """Write a results folder: on each dataset three methods, with maps of nine samples."""
    records = []
    for dataset in datasets:
        for label, detected, evaluations, baseline in METHODS:
            for seed in seeds:
                built = example_record(
                    *(label, detected - seed),
                    **{"evaluations": evaluations, "dataset": dataset, "baseline": baseline},
                    seed=seed,
                )
                if dataset == "synthbrain":
                    built["dataset"] |= {"args": SYNTHETIC_ARGUMENTS, "synthetic": True}
                name = f"{label}-{dataset}-{seed}".lower().replace(" ", "-").replace("/", "-")
                built["file"] = f"{name}.json"
                _write_samples(out / "samples" / f"{name}.h5", built, len(records))
                _write_maps(out / "pictures" / f"{name}.contact.png", detected)
                del built["seal"]
                content = {key: value for key, value in built.items() if key != "file"}
                built["seal"] = record_seal(content)
                records.append(built)
    write_example_records(out, records)
    return records


def _write_samples(path: Path, record: dict[str, Any], number: int) -> None:
    """Sample results whose replicates lie near the metrics of the record."""
    draw, shared = np.random.default_rng([1, number]), np.random.default_rng(0)
    samples = record["samples"]
    values = {name: metric["value"] for name, metric in record["metrics"].items()}
    common = shared.normal(0, 0.01, 2000)
    replicates = {
        name: np.clip(values[name] + common + draw.normal(0, 0.02, 2000), 0, 1)
        for name in ("pixel_ap", "image_auroc")
    }
    label, score = np.array(samples["label"], bool), np.array(samples["score"])
    results = SampleResults(
        samples["key"], samples["group"], label, score, None, values, replicates
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    metrics = {name: {"value": value} for name, value in values.items()}
    write_sample_results(path, {"metrics": metrics}, results)


def _write_maps(path: Path, detected: int) -> None:
    """Maps that are bright in a lesion the more so the more the method detects, by level."""
    y, x = np.mgrid[:SIDE, :SIDE]
    brain = ((y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2) < (SIDE * 0.42) ** 2
    samples: list[DisplayedSample] = []
    maps: dict[int, list[np.ndarray]] = {level: [] for level in LEVELS}
    for i in (0, 3, 6, 9, 12, 15, 22, 28, 34):
        draw, abnormal = np.random.default_rng(i), i < 20
        lesion = brain & ((y - 8 - i % 7) ** 2 + (x - 9 - i % 5) ** 2 < 8) & abnormal
        image = np.where(brain, 0.4 + 0.05 * draw.normal(size=brain.shape), 0) + 0.4 * lesion
        tags = {"lesion": "stroke" if i % 2 else "tumour"} if abnormal else {}
        samples.append(
            DisplayedSample(
                f"patient {i:02d}",
                np.clip(image, 0, 1)[None],
                (0.9 * image)[None] if i < 6 else None,
                None,
                *(lesion if abnormal else None, brain, None),
                caption=" ".join(tags.values()),
                label=abnormal,
                tags=tags,
            )
        )
        for level, of_level in maps.items():
            noise = np.abs(0.1 * draw.normal(size=brain.shape))
            of_level.append(noise + lesion * detected / 20 * level / 300)
    write_contact_sheet(path, samples, maps, CHOSEN)
