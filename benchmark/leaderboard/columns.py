"""The columns of a board, and how a figure is written in a cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..evaluation.metrics.ranking import LOWER_IS_BETTER
from .leaderboard import Board, Row, error_text, number, value_of

__all__ = ["BUDGET", "COST", "LOWER_IS_BETTER", "METRICS", "RULES", "TITLES", "Column", "columns"]

RULES = {"val": "val", "pseudo": "pseudo", "published": "paper", "oracle": "TEST"}
METRICS = (
    *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc"),
    *("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice"),
    *("pixel_dice_oracle", "pixel_iou", "healthy_fp", "lesion_sensitivity", "lesion_contrast"),
    *("sample_pixel_auroc", "sample_pixel_ap", "sample_pixel_dice_otsu"),
    *("healthy_psnr", "healthy_ssim"),
)
BUDGET = ("train_steps", "train_samples", "parameters", "evaluations_per_image", "gflops_per_image")
COST = ("train_seconds", "seconds_per_image", "peak_memory_mb")

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
    "healthy_psnr": "healthy PSNR",
    "healthy_ssim": "healthy SSIM",
}
"""How a metric is called in a head; of any other its name is shown."""


@dataclass(frozen=True)
class Column:
    """A column of a board; `brief` is what is left of it where room is scarce, None for nothing."""

    head: str
    cell: Callable[[Row], str]
    brief: Callable[[Row], str] | None = None
    grey: bool = False


def columns(board: Board) -> list[Column]:
    """The columns of a board; figures that none of its methods has are left out."""
    rule = next((row.record["threshold"]["rule"] for row in board.done), "")
    able = [
        Column("image\nAUROC", _bounded("image_auroc"), _plain("image_auroc")),
        Column("image\nAP", _plain("image_ap")),
        Column("pixel\nAP", _bounded("pixel_ap"), _plain("pixel_ap")),
        Column("pixel\nAUROC", _plain("pixel_auroc")),
        Column("AUPRO\n30", _plain("pixel_aupro30")),
        Column(f"Dice\n{rule}", _plain("pixel_dice")),
        Column("⌈Dice⌉\n(oracle)", _oracle, grey=True),
    ]
    return [
        Column("rank", lambda row: "-" if row.rank is None else str(row.rank)),
        Column("method", lambda row: row.name + (" ▼" if row.below else "")),
        Column("profile", lambda row: str(row.record["profile"])),
        Column("seed", lambda row: str(row.record["seed"])),
        Column("level", _level),
        *(c for c in able if any(c.cell(row) not in ("-", "(-)") for row in board.done)),
        Column("train\nsteps", lambda row: count(cost(row, "train_steps"))),
        Column("params\nM", lambda row: number(cost(row, "parameters"), 1e6)),
        Column("evals\n/image", lambda row: number(cost(row, "evaluations_per_image"))),
        Column("GFLOP\n/image", lambda row: number(cost(row, "gflops_per_image"))),
    ]


def cost(row: Row, name: str) -> float | None:
    return (row.record.get("cost") or {}).get(name)


def _plain(metric: str) -> Callable[[Row], str]:
    return lambda row: number(row.value(metric)) + error_text(row.record, metric)


def _bounded(metric: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        low, high = (value_of(row.record, metric, part) for part in ("low", "high"))
        interval = "" if low is None else f" [{number(low)}, {number(high)}]"
        error = error_text(row.record, metric)
        return number(row.value(metric)) + (f"{error} binned" if error else "") + interval

    return cell


def _oracle(row: Row) -> str:
    return f"({_plain('pixel_dice_oracle')(row)})"


def _level(row: Row) -> str:
    level = row.record.get("level")
    if not level or not level["chosen"]:
        return "-"
    return f"{level['chosen']} {RULES.get(level['rule'], level['rule'])}"


def count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def reason(row: Row) -> str:
    return f"{row.record['status']}: {' '.join(str(row.record['reason'] or 'no reason').split())}"
