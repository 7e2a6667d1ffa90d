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

    >>> from adbench.datasets.phantom import Phantom
    >>> arrays = SplitArrays.from_split(Phantom(shape=(16, 16), test=2).test())
    >>> arrays.x.shape, arrays.label.tolist()
    ((4, 1, 16, 16), [False, False, True, True])
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
    """Return maps (N, H, W): absolute distance to the mean of all training images.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> train = [Sample(torch.full((1, 1, 2), x), f"p{x}/z0", f"p{x}", False) for x in (0.0, 0.5)]
    >>> test = [Sample(torch.ones(1, 1, 2), "p2/z0", "p2", True)]
    >>> distance_to_mean(SplitArrays.from_split(train), SplitArrays.from_split(test))
    array([[[0.75, 0.75]]], dtype=float32)
    """
    return np.abs(test.x - train.x.mean(0)).mean(1)


def distance_to_slice_mean(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): absolute distance to the mean of the same slice in training.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> train = [Sample(torch.full((1, 1, 2), x), f"p1/z{x}", "p1", False) for x in (0.0, 0.5)]
    >>> test = [Sample(torch.ones(1, 1, 2), "p2/z0.5", "p2", True)]
    >>> distance_to_slice_mean(SplitArrays.from_split(train), SplitArrays.from_split(test))
    array([[[0.5, 0.5]]], dtype=float32)
    """
    return np.abs(test.x - _per_slice(train, test, lambda x: x.mean(0))).mean(1)


def atlas_z_score(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): absolute z-score against the same slice in training.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> train = [Sample(torch.full((1, 1, 2), x), f"p{x}/z0", f"p{x}", False) for x in (0.0, 0.4)]
    >>> test = [Sample(torch.full((1, 1, 2), 0.7), "p2/z0", "p2", True)]
    >>> atlas_z_score(SplitArrays.from_split(train), SplitArrays.from_split(test)).round(3)
    array([[[2., 2.]]], dtype=float32)
    """
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

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> train = [Sample(torch.full((1, 1, 2), x), f"p{x}/z0", f"p{x}", False) for x in (0.0, 0.5)]
    >>> test = [Sample(torch.tensor([[[0.0, 1.0]]]), "p2/z0", "p2", True)]
    >>> arrays = SplitArrays.from_split(train), SplitArrays.from_split(test)
    >>> pca_residual(1)(*arrays).round(3)  # to the diagonal, on which training lies
    array([[[0.5, 0.5]]], dtype=float32)
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
    """Return maps (N, H, W): absolute distance to the nearest training image.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> train = [Sample(torch.full((1, 1, 2), x), f"p{x}/z0", f"p{x}", False) for x in (0.0, 0.5)]
    >>> test = [Sample(torch.ones(1, 1, 2), "p2/z0", "p2", True)]
    >>> nearest_image_distance(SplitArrays.from_split(train), SplitArrays.from_split(test))
    array([[[0.5, 0.5]]], dtype=float32)
    """
    train_vectors, test_vectors = (arrays.x.reshape(len(arrays.x), -1) for arrays in (train, test))
    squared_distance = (train_vectors**2).sum(1) - 2 * test_vectors @ train_vectors.T
    return np.abs(test.x - train.x[squared_distance.argmin(1)]).mean(1)


def mirror_asymmetry(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): difference to the mirror image, blurred because no midline is
    registered.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> image = torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(1, 4, 4)
    >>> arrays = SplitArrays.from_split([Sample(image, "p1/z0", "p1", False)])
    >>> mirror_asymmetry(arrays, arrays).max()
    np.float32(0.0)
    """
    return _blur(np.abs(test.x - test.x[..., ::-1]).mean(1))


def blurred_atlas_z_score(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): `atlas_z_score`, blurred.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> train = [Sample(torch.full((1, 8, 8), x), f"p{x}/z0", f"p{x}", False) for x in (0.0, 0.4)]
    >>> spot = torch.full((1, 8, 8), 0.2)
    >>> spot[0, 4, 4] = 0.7
    >>> arrays = [SplitArrays.from_split(s) for s in (train, [Sample(spot, "p2/z0", "p2", True)])]
    >>> bool(blurred_atlas_z_score(*arrays).max() < atlas_z_score(*arrays).max())
    True
    """
    return _blur(atlas_z_score(train, test))


def _blur(maps: Array) -> Array:
    return np.asarray(ndimage.gaussian_filter(maps, (0, 1, 1)), np.float32)


def intensity_surprise(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): negative log-likelihood of a pixel's intensities, at any position.

    The model is a mixture of five Gaussians.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> train = [Sample(torch.linspace(0, 0.5, 64).view(1, 8, 8), "p1/z0", "p1", False)]
    >>> image = torch.full((1, 8, 8), 0.25)
    >>> image[0, 0, 0] = 1.0  # which no training pixel has
    >>> arrays = [SplitArrays.from_split(s) for s in (train, [Sample(image, "p2/z0", "p2", True)])]
    >>> int(intensity_surprise(*arrays).argmax())
    0
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
    """Return maps (N, H, W): the last modality but one (FLAIR of four), clipped at 1.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> image = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(4, 1, 1)  # t1, t2, flair, t1ce
    >>> arrays = SplitArrays.from_split([Sample(image, "p1/z0", "p1", False)])
    >>> flair_intensity(arrays, arrays)
    array([[[0.3]]], dtype=float32)
    """
    return test.x[:, max(test.x.shape[1] - 2, 0)]


def slice_height(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): the height of the slice, whatever it shows.

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> arrays = SplitArrays.from_split([Sample(torch.zeros(1, 1, 1), "p1/z+06", "p1", False)])
    >>> slice_height(arrays, arrays)
    array([[[-6.]]], dtype=float32)
    """
    height = np.array([float(name[1:]) for name in test.slice_name], np.float32)
    return np.broadcast_to(-height[:, None, None], test.roi.shape)


def counterpart_bound(train: SplitArrays, test: SplitArrays) -> Array:
    """Return maps (N, H, W): difference to the healthy counterpart; an upper bound, no result.

    It knows the brain without its lesion, but not the noise.

    >>> from adbench.datasets.phantom import Phantom
    >>> arrays = SplitArrays.from_split(Phantom(shape=(32, 32), test=1).test())
    >>> normal, abnormal = counterpart_bound(arrays, arrays).max((1, 2))
    >>> bool(normal == 0), bool(abnormal > 0.1)
    (True, True)
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

    >>> from adbench.datasets.phantom import Phantom
    >>> rows = evaluate_scorers(Phantom(shape=(16, 16), train=4, test=2, seed=1))
    >>> row = next(iter(rows))
    >>> row["scorer"], [name for name in row if name.startswith("image")]
    ('mean of all slices', ['image AUROC, top 2 %', 'image AUROC, mean', 'image AUROC, max'])
    """
    yield from compare_scorers(
        SplitArrays.from_split(dataset.train(), tag), SplitArrays.from_split(dataset.test(), tag)
    )


def compare_scorers(train: SplitArrays, test: SplitArrays) -> Iterable[dict[str, float | str]]:
    """Yield the results of each baseline as a row; see `evaluate_scorers`.

    train, test: the splits in memory

    >>> import torch
    >>> from adbench.datasets.base import Sample
    >>> normal = [Sample(torch.zeros(1, 2, 2), f"p{i}/z0", f"p{i}", False) for i in range(3)]
    >>> abnormal = Sample(torch.ones(1, 2, 2), "p9/z0", "p9", True, torch.ones(2, 2).bool())
    >>> train, test = SplitArrays.from_split(normal), SplitArrays.from_split([*normal, abnormal])
    >>> row = next(iter(compare_scorers(train, test)))
    >>> row["scorer"], float(row["image AUROC, mean"]), float(row["pixel AP"])
    ('mean of all slices', 1.0, 1.0)
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
    """Print the results of each baseline on a dataset, which the command line names, as a table.

    >>> from unittest.mock import patch
    >>> settings = '{"shape": [16, 16], "train": 8, "test": 2, "seed": 1}'
    >>> with patch("sys.argv", ["difficulty", settings, "--dataset", "phantom:Phantom"]):
    ...     main()
    | scorer | image AUROC, top 2 % | image AUROC, mean | ...
    | healthy counterpart (bound) | 1.000 | ...
    """
    parser = argparse.ArgumentParser(description="Simple baselines on a dataset of this package.")
    parser.add_argument("arguments", type=json.loads, default={}, nargs="?", help="as JSON")
    parser.add_argument("--dataset", default="synthbrain.dataset:SynthBrain", help="module:Class")
    parser.add_argument("--by", default="lesion", help="tag that parts the abnormal samples")
    options = parser.parse_args()
    module, _, name = options.dataset.partition(":")
    dataset = getattr(import_module(f"..{module}", __package__), name)(**options.arguments)
    sys.stdout.write(markdown_table(evaluate_scorers(dataset, options.by)) + "\n")


if __name__ == "__main__":
    main()
