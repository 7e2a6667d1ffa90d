"""Scores of simple baselines on a dataset, to show that it is neither trivial nor impossible.

`python -m adbench.datasets.synthbrain.difficulty '{"modalities": "flair"}'` prints the table of the
dataset card, assets/synthbrain.md. The baselines learn nothing but means, principal components and
a mixture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture

from ..base import Dataset, Split

Array = NDArray[np.float32]


class SplitArrays(NamedTuple):
    """A split in memory.

    x, counterpart: (N, C, H, W) float32
    roi, mask: (N, H, W) bool
    label, group, slice_name, kind: (N,)
    """

    x: Array
    roi: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    counterpart: Array
    label: NDArray[np.bool_]
    group: NDArray[np.str_]
    slice_name: NDArray[np.str_]
    kind: NDArray[np.str_]

    @classmethod
    def from_split(cls, split: Split, tag: str = "lesion") -> SplitArrays:
        """Read all samples of a split; `tag` is the one that `kind` holds."""
        samples = [split[i] for i in range(len(split))]
        blank = np.zeros(samples[0].x.shape[1:], bool)
        return cls(
            x=np.stack([s.x.numpy() for s in samples]),
            roi=np.stack([~blank if s.roi is None else s.roi.numpy() for s in samples]),
            mask=np.stack([blank if s.mask is None else s.mask.numpy() for s in samples]),
            counterpart=np.stack(
                [(s.x if s.counterpart is None else s.counterpart).numpy() for s in samples]
            ),
            label=np.array([s.label for s in samples]),
            group=np.array([s.group for s in samples]),
            slice_name=np.array([_slice_name(s.key) for s in samples]),
            kind=np.array([s.tags.get(tag, "none") for s in samples]),
        )


def _slice_name(key: str) -> str:
    """Return the slice of a key, "z+06" of "s0042/z+06"; "z0" if it names none."""
    last = key.rpartition("/")[2]
    return last if last.startswith("z") else "z0"


Scorer = Callable[[SplitArrays, SplitArrays], Array]
"""(train, test) -> a map of each test sample, (N, H, W)."""


def distance_to_mean(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): absolute distance to the mean of all training images."""
    return np.abs(test.x - train.x.mean(0)).mean(1)


def distance_to_slice_mean(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): absolute distance to the mean of the same slice in training."""
    return np.abs(test.x - _per_slice(train, test, lambda x: x.mean(0))).mean(1)


def atlas_z_score(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): absolute z-score against the same slice in training."""
    mean = _per_slice(train, test, lambda x: x.mean(0))
    spread = _per_slice(train, test, lambda x: x.std(0))
    return (np.abs(test.x - mean) / (spread + 0.05)).mean(1)


def _per_slice(train: SplitArrays, test: SplitArrays, statistic: Callable[[Array], Array]) -> Array:
    statistics = {
        name: statistic(train.x[train.slice_name == name]) for name in np.unique(train.slice_name)
    }
    return np.stack([statistics[name] for name in test.slice_name])


def pca_residual(count: int) -> Scorer:
    """Return a scorer by reconstruction error of a PCA of the training images.

    count: number of principal components
    """

    def score(train: SplitArrays, test: SplitArrays) -> Array:
        n_components = min(count, len(train.x) - 1)
        pca = PCA(n_components, svd_solver="randomized", random_state=0)
        pca.fit(train.x.reshape(len(train.x), -1))
        flat = test.x.reshape(len(test.x), -1)
        residual = flat - pca.inverse_transform(pca.transform(flat))
        return np.abs(residual).reshape(test.x.shape).mean(1)

    return score


def nearest_image_distance(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): absolute distance to the nearest training image."""
    train_vectors, test_vectors = (arrays.x.reshape(len(arrays.x), -1) for arrays in (train, test))
    squared_distance = (train_vectors**2).sum(1) - 2 * test_vectors @ train_vectors.T
    return np.abs(test.x - train.x[squared_distance.argmin(1)]).mean(1)


def mirror_asymmetry(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): difference to the mirror image, blurred because no midline is
    registered.
    """
    return _blur(np.abs(test.x - test.x[..., ::-1]).mean(1))


def blurred_atlas_z_score(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): `atlas_z_score`, blurred."""
    return _blur(atlas_z_score(train, test))


def _blur(maps: Array) -> Array:
    return np.asarray(ndimage.gaussian_filter(maps, (0, 1, 1)), np.float32)


def intensity_surprise(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): negative log-likelihood of a pixel's intensities, at any position.

    The model is a mixture of five Gaussians.
    """
    intensities = train.x.transpose(0, 2, 3, 1)[train.roi]
    subset = intensities[
        np.random.default_rng(0).choice(
            len(intensities), min(len(intensities), 40_000), replace=False
        )
    ]
    mixture = GaussianMixture(5, random_state=0).fit(subset)
    flat = test.x.transpose(0, 2, 3, 1).reshape(-1, test.x.shape[1])
    return -np.asarray(mixture.score_samples(flat), np.float32).reshape(test.roi.shape)


def flair_intensity(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): the last modality but one (FLAIR of four), clipped at 1."""
    return test.x[:, max(test.x.shape[1] - 2, 0)]


def slice_height(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): the height of the slice, whatever it shows."""
    height = np.array([float(name[1:]) for name in test.slice_name], np.float32)
    return np.broadcast_to(-height[:, None, None], test.roi.shape)


def counterpart_bound(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): difference to the healthy counterpart; an upper bound, no result.

    It knows the brain without its lesion, but not the noise.
    """
    clean = ndimage.gaussian_filter(test.counterpart, (0, 0, 0.7, 0.7))
    return _blur(np.abs(ndimage.gaussian_filter(test.x, (0, 0, 0.7, 0.7)) - clean).mean(1))


SCORERS: dict[str, Scorer] = {
    "mean of all slices": distance_to_mean,
    "mean of the slice": distance_to_slice_mean,
    "atlas z of the slice": atlas_z_score,
    "atlas z, blurred": blurred_atlas_z_score,
    "mirror image, blurred": mirror_asymmetry,
    "nearest image": nearest_image_distance,
    "PCA 16": pca_residual(16),
    "PCA 64": pca_residual(64),
    "PCA 200": pca_residual(200),
    "mixture of 5": intensity_surprise,
    "intensity (FLAIR)": flair_intensity,
    "height of the slice": slice_height,
    "healthy counterpart (bound)": counterpart_bound,
}

REDUCERS: dict[str, Callable[[Array], float]] = {
    "top 2 %": lambda v: float(np.sort(v)[-max(len(v) // 50, 1) :].mean()),
    "mean": lambda v: float(v.mean()),
    "max": lambda v: float(v.max()),
}


def evaluate_scorers(dataset: Dataset, tag: str = "lesion") -> Iterable[dict[str, float | str]]:
    """Yield the results of each baseline as a row.

    dataset: with train and test splits
    tag: that divides the abnormal samples into kinds

    A row holds the image AUROC for each reducer, per subject, and per kind of lesion (each against
    all healthy slices), and the pixel AP within the brain, likewise. A subject's score is the mean
    of its slices, because subjects with a lesion have fewer of them.
    """
    yield from compare_scorers(
        SplitArrays.from_split(dataset.train(), tag), SplitArrays.from_split(dataset.test(), tag)
    )


def compare_scorers(train: SplitArrays, test: SplitArrays) -> Iterable[dict[str, float | str]]:
    """Yield the results of each baseline as a row; see `evaluate_scorers`.

    train, test: the splits in memory
    """
    for name, scorer in SCORERS.items():
        maps = scorer(train, test)
        inside = [m[r] for m, r in zip(maps, test.roi, strict=True)]
        row: dict[str, float | str] = {"scorer": name}
        for reducer, reduce in REDUCERS.items():
            scores = np.array([reduce(values) for values in inside])
            row[f"image AUROC, {reducer}"] = roc_auc_score(test.label, scores)
        scores = np.array([REDUCERS["top 2 %"](values) for values in inside])
        subjects = np.unique(test.group)
        subject_scores = [scores[test.group == subject].mean() for subject in subjects]
        subject_labels = [test.label[test.group == subject].any() for subject in subjects]
        row["person AUROC"] = roc_auc_score(subject_labels, subject_scores)
        row["pixel AP"] = average_precision_score(test.mask[test.roi], maps[test.roi])
        for kind in sorted(set(test.kind[test.label])):
            selected = ~test.label | (test.kind == kind)
            row[f"{kind} AUROC"] = roc_auc_score(test.label[selected], scores[selected])
            roi = test.roi & selected[:, None, None]
            row[f"{kind} AP"] = average_precision_score(test.mask[roi], maps[roi])
        yield row


def markdown_table(rows: Iterable[dict[str, float | str]]) -> str:
    """Return rows as a Markdown table.

    rows: by column; numbers are printed with three digits

    >>> print(markdown_table([{"scorer": "PCA 16", "pixel AP": 0.25}]))
    | scorer | pixel AP |
    |---|---|
    | PCA 16 | .250 |
    """
    lines: list[str] = []
    for row in rows:
        if not lines:
            lines += [f"| {' | '.join(row)} |", "|" + "---|" * len(row)]
        cells = (v if isinstance(v, str) else f"{v:.3f}".lstrip("0") for v in row.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simple baselines on a dataset of this package.")
    parser.add_argument("arguments", type=json.loads, default={}, nargs="?", help="as JSON")
    parser.add_argument("--dataset", default="synthbrain:SynthBrain", help="module:Class")
    parser.add_argument("--by", default="lesion", help="tag that parts the abnormal samples")
    options = parser.parse_args()
    module, _, name = options.dataset.partition(":")
    dataset = getattr(import_module(f".{module}", __package__), name)(**options.arguments)
    sys.stdout.write(markdown_table(evaluate_scorers(dataset, options.by)) + "\n")


if __name__ == "__main__":
    main()
