"""The names of the figures in a record, and the ranges of its metrics."""

from __future__ import annotations

METRICS = (
    *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc"),
    *("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice"),
    *("pixel_dice_oracle", "pixel_iou", "healthy_fp", "lesion_sensitivity", "lesion_contrast"),
    *("sample_pixel_auroc", "sample_pixel_ap", "sample_pixel_dice_otsu"),
    *("volume_ap", "volume_dice", "volume_dice_oracle", "volume_sensitivity", "volume_precision"),
    *("healthy_volume_fp", "pixel_aupimo", "pixel_iou_oracle", "image_ppv95"),
    *("range_auc_roc", "range_auc_pr", "vus_roc", "vus_pr", "pa_f1_oracle", "pa_f1_random"),
    *("pointing_game", "box_recall_025", "box_recall_1"),
    *("healthy_psnr", "healthy_ssim"),
)
BUDGET = ("train_steps", "train_samples", "parameters", "evaluations_per_image", "gflops_per_image")
"""What a method spends, the same on any machine."""

COST = ("train_seconds", "seconds_per_image", "peak_memory_mb")
"""What it takes on the machine that it ran on, different from run to run."""

FALSE_POSITIVE_RATES = ("image_fpr", "pixel_fpr")
"""How often normal test data have a p-value of at most the nominal rate, in `calibration`."""

METRIC_NAMES = {"pixel_ap": "pixel AP", "image_auroc": "image AUROC"}
"""The metrics that leaderboards are sorted by, in words."""

METRIC_RANGES = dict.fromkeys(METRICS, (0.0, 1.0)) | {
    "lesion_contrast": (-1.0, 1.0),
    "healthy_ssim": (-1.0, 1.0),
    "healthy_psnr": (-1000.0, 1000.0),
}
"""Lowest and highest value of each metric; PSNR in dB. Of another metric any number is taken."""

ROUNDING = 1e-6
"""How far a metric may be outside its range: sums of floating-point numbers are not exact."""
