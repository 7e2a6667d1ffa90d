"""How far cheap scorers get on a dataset: one that cannot tell these apart ranks nothing.

`python -m adbench.datasets.synthbrain.difficulty '{"modalities": "flair"}'` prints the table of the
card, assets/synthbrain.md. Nothing is learnt but means, components and a mixture.
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


class Pile(NamedTuple):
    """A split in memory: x (N, C, H, W), roi and mask (N, H, W), label, place and kind (N,)."""

    x: Array
    roi: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    twin: Array
    label: NDArray[np.bool_]
    group: NDArray[np.str_]
    place: NDArray[np.str_]
    kind: NDArray[np.str_]

    @classmethod
    def of(cls, split: Split, by: str = "lesion") -> Pile:
        samples = [split[i] for i in range(len(split))]
        blank = np.zeros(samples[0].x.shape[1:], bool)
        return cls(
            x=np.stack([s.x.numpy() for s in samples]),
            roi=np.stack([~blank if s.roi is None else s.roi.numpy() for s in samples]),
            mask=np.stack([blank if s.mask is None else s.mask.numpy() for s in samples]),
            twin=np.stack([(s.x if s.twin is None else s.twin).numpy() for s in samples]),
            label=np.array([s.label for s in samples]),
            group=np.array([s.group for s in samples]),
            place=np.array([_place(s.key) for s in samples]),
            kind=np.array([s.tags.get(by, "none") for s in samples]),
        )


def _place(key: str) -> str:
    """Which slice of a person a sample is: "z+06" of "s0042/z+06"; alike for all where not told."""
    last = key.rpartition("/")[2]
    return last if last.startswith("z") else "z0"


Scorer = Callable[[Pile, Pile], Array]
"""(train, test) -> a map of each test sample, (N, H, W)."""


def far_from_mean(train: Pile, test: Pile) -> Array:
    return np.abs(test.x - train.x.mean(0)).mean(1)


def far_from_place(train: Pile, test: Pile) -> Array:
    return np.abs(test.x - _per_place(train, test, lambda x: x.mean(0))).mean(1)


def atlas(train: Pile, test: Pile) -> Array:
    """Standard deviations from the mean of the same slice of other people."""
    mean = _per_place(train, test, lambda x: x.mean(0))
    spread = _per_place(train, test, lambda x: x.std(0))
    return (np.abs(test.x - mean) / (spread + 0.05)).mean(1)


def _per_place(train: Pile, test: Pile, of: Callable[[Array], Array]) -> Array:
    known = {place: of(train.x[train.place == place]) for place in np.unique(train.place)}
    return np.stack([known[place] for place in test.place])


def components(count: int) -> Scorer:
    """What the first principal components of the training images leave over."""

    def score(train: Pile, test: Pile) -> Array:
        most = min(count, len(train.x) - 1)
        pca = PCA(most, svd_solver="randomized", random_state=0)
        pca.fit(train.x.reshape(len(train.x), -1))
        flat = test.x.reshape(len(test.x), -1)
        rest = flat - pca.inverse_transform(pca.transform(flat))
        return np.abs(rest).reshape(test.x.shape).mean(1)

    return score


def nearest(train: Pile, test: Pile) -> Array:
    """Distance to the training image that is most alike."""
    known, asked = (pile.x.reshape(len(pile.x), -1) for pile in (train, test))
    square = (known**2).sum(1) - 2 * asked @ known.T
    return np.abs(test.x - train.x[square.argmin(1)]).mean(1)


def mirrored(train: Pile, test: Pile) -> Array:
    """What left and right do not share, blurred for want of a registered midline."""
    return _blurred(np.abs(test.x - test.x[..., ::-1]).mean(1))


def blurred_atlas(train: Pile, test: Pile) -> Array:
    return _blurred(atlas(train, test))


def _blurred(maps: Array) -> Array:
    return np.asarray(ndimage.gaussian_filter(maps, (0, 1, 1)), np.float32)


def unlikely(train: Pile, test: Pile) -> Array:
    """Surprise at the intensities of a pixel, wherever it lies: a mixture of five Gaussians."""
    seen = train.x.transpose(0, 2, 3, 1)[train.roi]
    few = seen[np.random.default_rng(0).choice(len(seen), min(len(seen), 40_000), replace=False)]
    mixture = GaussianMixture(5, random_state=0).fit(few)
    flat = test.x.transpose(0, 2, 3, 1).reshape(-1, test.x.shape[1])
    return -np.asarray(mixture.score_samples(flat), np.float32).reshape(test.roi.shape)


def bright(train: Pile, test: Pile) -> Array:
    """The last modality but one (FLAIR of four) as it is. Clipped at 1, so that scores tie."""
    return test.x[:, max(test.x.shape[1] - 2, 0)]


def low(train: Pile, test: Pile) -> Array:
    """Where a slice lies, and nothing of what it shows."""
    height = np.array([float(place[1:]) for place in test.place], np.float32)
    return np.broadcast_to(-height[:, None, None], test.roi.shape)


def knowing_twin(train: Pile, test: Pile) -> Array:
    """No result: what could be had by knowing the brain without its lesion, but not its noise."""
    clean = ndimage.gaussian_filter(test.twin, (0, 0, 0.7, 0.7))
    return _blurred(np.abs(ndimage.gaussian_filter(test.x, (0, 0, 0.7, 0.7)) - clean).mean(1))


SCORERS: dict[str, Scorer] = {
    "mean of all slices": far_from_mean,
    "mean of the slice": far_from_place,
    "atlas z of the slice": atlas,
    "atlas z, blurred": blurred_atlas,
    "mirror image, blurred": mirrored,
    "nearest image": nearest,
    "PCA 16": components(16),
    "PCA 64": components(64),
    "PCA 200": components(200),
    "mixture of 5": unlikely,
    "intensity (FLAIR)": bright,
    "height of the slice": low,
    "its own twin (bound)": knowing_twin,
}

REDUCERS: dict[str, Callable[[Array], float]] = {
    "top 2 %": lambda v: float(np.sort(v)[-max(len(v) // 50, 1) :].mean()),
    "mean": lambda v: float(v.mean()),
    "max": lambda v: float(v.max()),
}


def ladder(dataset: Dataset, by: str = "lesion") -> Iterable[dict[str, float | str]]:
    """A row of each scorer: image AUROC for each reducer, by person, and by kind of lesion (each
    against all healthy slices); pixel AP within the brain, likewise. A person's score is the mean
    of their slices, as diseased people have fewer of them."""
    yield from compare(Pile.of(dataset.train(), by), Pile.of(dataset.test(), by))


def compare(train: Pile, test: Pile) -> Iterable[dict[str, float | str]]:
    for name, scorer in SCORERS.items():
        maps = scorer(train, test)
        inside = [m[r] for m, r in zip(maps, test.roi, strict=True)]
        row: dict[str, float | str] = {"scorer": name}
        for reducer, reduce in REDUCERS.items():
            scores = np.array([reduce(values) for values in inside])
            row[f"image AUROC, {reducer}"] = roc_auc_score(test.label, scores)
        scores = np.array([REDUCERS["top 2 %"](values) for values in inside])
        people = np.unique(test.group)
        whole = [scores[test.group == one].mean() for one in people]
        sick = [test.label[test.group == one].any() for one in people]
        row["person AUROC"] = roc_auc_score(sick, whole)
        row["pixel AP"] = average_precision_score(test.mask[test.roi], maps[test.roi])
        for kind in sorted(set(test.kind[test.label])):
            some = ~test.label | (test.kind == kind)
            row[f"{kind} AUROC"] = roc_auc_score(test.label[some], scores[some])
            roi = test.roi & some[:, None, None]
            row[f"{kind} AP"] = average_precision_score(test.mask[roi], maps[roi])
        yield row


def table(rows: Iterable[dict[str, float | str]]) -> str:
    """Markdown."""
    lines: list[str] = []
    for row in rows:
        if not lines:
            lines += [f"| {' | '.join(row)} |", "|" + "---|" * len(row)]
        cells = (v if isinstance(v, str) else f"{v:.3f}".lstrip("0") for v in row.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cheap scorers on a dataset of this room.")
    parser.add_argument("arguments", type=json.loads, default={}, nargs="?", help="as JSON")
    parser.add_argument("--dataset", default="synthbrain:SynthBrain", help="module:Class")
    parser.add_argument("--by", default="lesion", help="tag that parts the abnormal samples")
    given = parser.parse_args()
    module, _, name = given.dataset.partition(":")
    dataset = getattr(import_module(f".{module}", __package__), name)(**given.arguments)
    sys.stdout.write(table(ladder(dataset, given.by)) + "\n")


if __name__ == "__main__":
    main()
