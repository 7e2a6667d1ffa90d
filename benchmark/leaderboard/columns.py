"""Columns of a leaderboard, and the text of their table cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..evaluation.metrics.ranking import LOWER_IS_BETTER
from .binning import binning_error_text
from .entry import Entry
from .leaderboard import Leaderboard
from .metric_names import BUDGET, COST, FALSE_POSITIVE_RATES, METRICS
from .records import metric_value
from .text import number_text

__all__ = [
    "BUDGET",
    "COST",
    "FALSE_POSITIVE_RATES",
    "LEVEL_RULE_NAMES",
    "LOWER_IS_BETTER",
    "METRICS",
    "TITLES",
    "Column",
    "columns",
]

LEVEL_RULE_NAMES = {"val": "val", "pseudo": "pseudo", "published": "paper", "oracle": "TEST"}
TITLES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1max",
    "image_fpr95": "image FPR95",
    "group_auroc": "group AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_aupro30": "AUPRO 30",
    "pixel_aupro05": "AUPRO 05",
    "pixel_dice": "Dice",
    "pixel_dice_oracle": "⌈Dice⌉ (oracle)",
    "pixel_iou": "IoU",
    "healthy_fp": "healthy FP",
    "lesion_sensitivity": "lesions found",
    "lesion_contrast": "lesion contrast",
    "sample_pixel_auroc": "pixel AUROC of a sample",
    "sample_pixel_ap": "pixel AP of a sample",
    "sample_pixel_dice_otsu": "Dice of a sample (Otsu)",
    "healthy_volume_fp": "FP of a healthy volume",
    "pixel_aupimo": "AUPIMO",
    "pixel_iou_oracle": "⌈IoU⌉ (oracle)",
    "image_ppv95": "image PPV at 95 % sensitivity",
    "volume_ap": "AP of a volume",
    "volume_dice": "Dice of a volume",
    "volume_dice_oracle": "⌈Dice of a volume⌉ (oracle)",
    "volume_sensitivity": "sensitivity of a volume",
    "volume_precision": "precision of a volume",
    "healthy_psnr": "healthy PSNR",
    "healthy_ssim": "healthy SSIM",
    "pointing_game": "pointing game",
    "box_recall_025": "box recall at 0.25 FP per image",
    "box_recall_1": "box recall at 1 FP per image",
    "range_auc_roc": "R-AUC-ROC",
    "range_auc_pr": "R-AUC-PR",
    "vus_roc": "VUS-ROC",
    "vus_pr": "VUS-PR",
    "pa_f1_oracle": "⌈point-adjusted F1⌉ (oracle)",
    "pa_f1_random": "⌈point-adjusted F1⌉ of random scores",
    "image_fpr": "false alarms at 5 % (images)",
    "pixel_fpr": "false alarms at 5 % (pixels)",
}
"""How a metric is called in a head; of any other its name is shown."""


@dataclass(frozen=True)
class Column:
    """A column of a leaderboard.

    title: its lines        text: the cell of an entry
    short_text: a shorter cell, where there is little room; None to leave the column out
    grey: whether its values are no results

    >>> from adbench.benchmark.leaderboard.columns import Column
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> seed = Column("seed", lambda entry: str(entry.record["seed"]))
    >>> [seed.text(entry) for entry in example_leaderboard().entries]
    ['0', '0']
    """

    title: str
    text: Callable[[Entry], str]
    short_text: Callable[[Entry], str] | None = None
    grey: bool = False


def columns(leaderboard: Leaderboard) -> list[Column]:
    """The columns of a leaderboard; metrics that none of its methods has are left out.

    >>> from adbench.benchmark.leaderboard.columns import columns
    >>> from adbench.benchmark.leaderboard.leaderboard import Leaderboard
    >>> [column.title for column in columns(Leaderboard("brats", "pixel_ap", []))][:4]
    ['rank', 'method', 'profile', 'seed']
    """
    rule = next((entry.record["threshold"]["rule"] for entry in leaderboard.done), "")
    optional = [
        Column("image\nAUROC", _interval_text("image_auroc"), _value_text("image_auroc")),
        Column("image\nAP", _value_text("image_ap")),
        Column("pixel\nAP", _interval_text("pixel_ap"), _value_text("pixel_ap")),
        Column("pixel\nAUROC", _value_text("pixel_auroc")),
        Column("AUPRO\n30", _value_text("pixel_aupro30")),
        Column(f"Dice\n{rule}", _value_text("pixel_dice")),
        Column("Dice of\na volume", _interval_text("volume_dice"), _value_text("volume_dice")),
        Column("pointing\ngame", _interval_text("pointing_game"), _value_text("pointing_game")),
        Column("box recall\n1 FP", _interval_text("box_recall_1"), _value_text("box_recall_1")),
        Column("VUS\nPR", _interval_text("vus_pr"), _value_text("vus_pr")),
        Column("R-AUC\nPR", _interval_text("range_auc_pr"), _value_text("range_auc_pr")),
        Column("⌈F1 adj.⌉\n(random)", _adjusted_text, grey=True),
        Column("⌈Dice⌉\n(oracle)", _oracle_text, grey=True),
        Column("false alarms\nat 5 %", _false_positive_text),
    ]
    return [
        Column("rank", lambda entry: "-" if entry.rank is None else str(entry.rank)),
        Column("method", lambda entry: entry.name + (" ▼" if entry.worse_than_baseline else "")),
        Column("profile", lambda entry: str(entry.record["profile"])),
        Column("seed", lambda entry: str(entry.record["seed"])),
        Column("level", _level_text),
        *(
            c
            for c in optional
            if any(c.text(entry) not in ("-", "(-)") for entry in leaderboard.done)
        ),
        Column("train\nsteps", lambda entry: count_text(cost_of(entry, "train_steps"))),
        Column("params\nM", lambda entry: number_text(cost_of(entry, "parameters"), 1e6)),
        Column("evals\n/image", lambda entry: calls_text(cost_of(entry, "evaluations_per_image"))),
        Column("GFLOP\n/image", lambda entry: number_text(cost_of(entry, "gflops_per_image"))),
    ]


def cost_of(entry: Entry, name: str) -> float | None:
    """A cost of an entry, by its name in the record; None where it was not measured.

    >>> from adbench.benchmark.leaderboard.columns import cost_of
    >>> from adbench.benchmark.leaderboard.entry import Entry
    >>> cost_of(Entry({"cost": {"train_steps": 700}}, 1, "AnoDDPM"), "train_steps")
    700
    """
    return (entry.record.get("cost") or {}).get(name)


def _value_text(metric: str) -> Callable[[Entry], str]:
    return lambda entry: number_text(entry.value(metric)) + binning_error_text(entry.record, metric)


def _interval_text(metric: str) -> Callable[[Entry], str]:
    def text(entry: Entry) -> str:
        low, high = (metric_value(entry.record, metric, part) for part in ("low", "high"))
        interval = "" if low is None else f" [{number_text(low)}, {number_text(high)}]"
        error = binning_error_text(entry.record, metric)
        return number_text(entry.value(metric)) + (f"{error} binned" if error else "") + interval

    return text


def _oracle_text(entry: Entry) -> str:
    return f"({_value_text('pixel_dice_oracle')(entry)})"


def _adjusted_text(entry: Entry) -> str:
    """The point-adjusted F1 of signals, never without that of random scores."""
    if entry.value("pa_f1_oracle") is None:
        return "-"
    values = (_value_text(f"pa_f1_{name}")(entry) for name in ("oracle", "random"))
    return "{} ({})".format(*values)


def _false_positive_text(entry: Entry) -> str:
    """Shares of normal test samples and of their pixels with a p-value of at most 5 %."""
    calibration = entry.record.get("calibration") or {}
    rates = [calibration.get(name) for name in FALSE_POSITIVE_RATES]
    if all(rate is None for rate in rates):
        return "-"
    return " / ".join("-" if rate is None else f"{100 * rate:.1f} %" for rate in rates)


def _level_text(entry: Entry) -> str:
    level = entry.record.get("level")
    if not level or not level["chosen"]:
        return "-"
    return f"{level['chosen']} {LEVEL_RULE_NAMES.get(level['rule'], level['rule'])}"


def count_text(value: float | None) -> str:
    """A whole number as text; "-" for None.

    >>> from adbench.benchmark.leaderboard.columns import count_text
    >>> count_text(700), count_text(None)
    ('700', '-')
    """
    return "-" if value is None else f"{value:.0f}"


def calls_text(value: float | None) -> str:
    """Network evaluations per image as text, four digits; "-" for None.

    >>> from adbench.benchmark.leaderboard.columns import calls_text
    >>> calls_text(40.0), calls_text(2.25), calls_text(None)
    ('40', '2.25', '-')
    """
    return "-" if value is None else f"{value:,.4g}"


def reason_text(entry: Entry) -> str:
    """Why an entry has no result, on one line.

    >>> from adbench.benchmark.leaderboard.columns import reason_text
    >>> from adbench.benchmark.leaderboard.entry import Entry
    >>> reason_text(Entry({"status": "failed", "reason": "CUDA out of memory"}, None, "AnoDDPM"))
    'failed: CUDA out of memory'
    """
    return (
        f"{entry.record['status']}: {' '.join(str(entry.record['reason'] or 'no reason').split())}"
    )
