"""What the columns of the board mean, in a sentence or two, for somebody who meets them first."""

from __future__ import annotations

EXPLANATIONS = {
    "rank": (
        "Place by the metric that the board is sorted by, 1 the best. Equal values share a "
        "rank, methods before baselines."
    ),
    "verdict": (
        "Whether the entry differs from the best one, by the paired bootstrap over groups "
        "(patients, recordings) on the same samples; p-values are corrected for the number of "
        "entries by Holm's method."
    ),
    "profile": (
        "The settings and the training budget: tiny is for a laptop's CPU, paper is what the "
        "authors published."
    ),
    "seed": "The number from which all random draws of the training follow.",
    "level": (
        "The noise level (1 to 1000) at which the method was evaluated, and how it was chosen: "
        "val on validation data, pseudo on made-up anomalies, paper as the authors published."
    ),
    "image_auroc": (
        "The chance that an abnormal sample gets a higher score than a normal one. 0.5 is "
        "guessing, 1 is perfect."
    ),
    "image_ap": (
        "Average precision of samples: the area under precision over recall. Guessing gives the"
        " share of abnormal samples."
    ),
    "pixel_ap": (
        "Average precision of all pixels together: how well the map ranks abnormal pixels above"
        " normal ones. Guessing gives the share of abnormal pixels."
    ),
    "pixel_auroc": (
        "The chance that an abnormal pixel gets a higher value than a normal one. It is high "
        "for most methods where lesions are small."
    ),
    "pixel_aupro30": (
        "Area under the mean overlap with each lesion over the false-positive rate, up to a "
        "rate of 30 %. Small lesions count as much as large ones."
    ),
    "pixel_dice": (
        "Overlap of the pixels above the threshold with the mask: 0 none, 1 equal. The "
        "threshold is chosen without looking at test data."
    ),
    "pixel_dice_oracle": (
        "Dice with the threshold that is best on the test set: an upper bound, not a fair "
        "score. Do not report it."
    ),
    "volume_dice": "Mean Dice of whole volumes.",
    "vus_pr": (
        "Volume under the precision-recall surface of a signal: average precision that forgives an "
        "anomaly found a little early or late."
    ),
    "pointing_game": "The share of abnormal images whose highest pixel lies in a box of the truth.",
    "box_recall_1": (
        "The share of boxes that are found where one false finding per normal image is allowed."
    ),
    "image_fpr": (
        "The share of normal test samples called abnormal at p = 5 %. Much more than 5 % means "
        "that the calibration samples are unlike the test samples."
    ),
    "pixel_fpr": "The share of pixels of normal test samples called abnormal at p = 5 %.",
    "evaluations_per_image": (
        "Calls of the network for one sample: the cost that does not depend on the machine."
    ),
    "train_steps": "Steps of the optimizer in training; 0 where nothing is trained by gradients.",
}
"""By the key of a column."""

GLOSSARY = {
    "baseline": (
        "A simple method without diffusion, run beside the others: what does not beat it is of "
        "little use."
    ),
    "95 % interval": (
        "Where the figure would lie if other patients (groups) had been tested, by resampling "
        "these. It does not cover another training: use several seeds."
    ),
    "not distinguishable": "The paired 95 % interval of the difference contains 0.",
    "oracle": (
        "Chosen with the labels of the test set: an optimistic upper bound; do not report it."
    ),
    "calibration samples": "Normal samples that are not trained on; thresholds come from them.",
    "trial run": "Made with --limit on a part of the samples: to try things out, not to quote.",
}
