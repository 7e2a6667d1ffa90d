"""Records as the runner writes them, for tests of what reads them."""

from __future__ import annotations

from typing import Any

METRICS = (
    *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc", "pixel_auroc"),
    *("pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice", "pixel_dice_oracle"),
    *("pixel_iou", "healthy_fp"),
)


def record(label: str, pixel_ap: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    """A whole record; `changes` name what differs, `part__key` reaching one level down."""
    reference = (*METRICS[:5], "healthy_fp") if pixel_ap is None else METRICS
    values: dict[str, Any] = {name: 0.4321 for name in reference} | {"pixel_ap": pixel_ap}
    built: dict[str, Any] = {
        "schema": 2,
        "status": "ok",
        "reason": None,
        "method": {
            "name": label.lower().replace(" ", "-"),
            "label": label,
            "supervision": "normal",
            "baseline": False,
            "args": {},
            "paper": "",
        },
        "dataset": {"name": "brats", "args": {}, "fingerprint": "f00d", "synthetic": False},
        "profile": "tiny",
        "seed": 0,
        "partial": None,
        "protocol": {"threshold": "healthy@5%", "id": "abcd1234", "text": "By the book."},
        "level": {"chosen": 250, "rule": "val", "published": 250, "oracle": 100},
        "threshold": {"rule": "healthy@5%", "value": 0.25},
        "metrics": {
            name: {"value": values.get(name), "low": None, "high": None} for name in METRICS
        },
        "at_published": {},
        "at_oracle": {},
        "sweep": {},
        "strata": {},
        "reference": {"prevalence": 0.0213, "dice_floor": 0.0417, "image_prevalence": 0.5},
        "counts": {
            "test": 200,
            "test_abnormal": 90,
            "test_groups": 40,
            "val": 50,
            "calibration": 30,
        },
        "cost": {
            "train_steps": 700,
            "train_samples": 11200,
            "train_gflops": 100.0,
            "parameters": 690000,
            "evaluations_per_image": 20.0,
            "gflops_per_image": 3.8,
            "train_seconds": 65.123,
            "seconds_per_image": 0.0987,
            "peak_memory_mb": 512.5,
        },
        "keys": {},
        "versions": {},
        "device": "cpu",
    }
    if pixel_ap is not None:
        built["metrics"]["pixel_ap"] |= {"low": pixel_ap - 0.05, "high": pixel_ap + 0.05}
    for name, value in changes.items():
        *way, last = name.split("__")
        (built[way[0]] if way else built)[last] = value
    return built


def missing(label: str, status: str = "failed", reason: str = "it broke", **changes: Any) -> Any:
    """What the runner writes of an experiment that has no result."""
    whole = record(label, status=status, reason=reason, dataset__fingerprint="", **changes)
    result = ("level", "threshold", "metrics", "reference", "counts", "cost", "sweep", "strata")
    return {key: value for key, value in whole.items() if key not in result}


def some() -> list[Any]:
    return [
        record("pDDPM", 0.41),
        record("AnoDDPM", 0.52),
        record("Healthy mean", 0.47, method__baseline=True, level__chosen=0),
        missing("autoDDPM"),
    ]
