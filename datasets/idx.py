"""Small images in the idx files of the MNIST family: one set, or some classes, against others.

LeCun et al., "The MNIST database of handwritten digits"; Xiao et al., "Fashion-MNIST",
https://arxiv.org/abs/1708.07747. Under the root, for every set,

    FashionMNIST/raw/train-images-idx3-ubyte[.gz]     beside it train-labels-idx1-ubyte[.gz]
    FashionMNIST/raw/t10k-images-idx3-ubyte[.gz]      and t10k-labels-idx1-ubyte[.gz]
    FashionMNIST/numpy/{train,test}/FashionMNIST_0.npy

as torchvision lays them, without raw/ too; the last is the form of ddpm-ood (Graham et al., CVPR
Workshops 2023, https://arxiv.org/abs/2211.07740). Its csv files are not read: which images they
name depends on the order of a file system. No pickle is read either.

Two sets often differ in mean intensity alone: compare with the intensity baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from .base import (
    Count,
    DataError,
    Many,
    Natural,
    Progress,
    Sample,
    Spec,
    ThreeFractions,
    no_progress,
)
from .io.directories import list_directory
from .io.folder_names import resolve_case
from .io.hdf5_arrays import Array
from .io.idx import PublishedSet, holds_pickles, read_published_sets
from .io.images import resize
from .preparation.array_dataset import ArrayDataset, ArraySample
from .preparation.cases import CaseSamples, DatasetIndex
from .splits.assignment import Case, assign_groups, check_fractions
from .splits.shared_subjects import check_split_policy, overlap_note

Flip = Literal["vertical", "horizontal", "both"]

FLIPS: dict[str, tuple[int, ...]] = {"vertical": (-2,), "horizontal": (-1,), "both": (-2, -1)}
SAMPLES_PER_CASE = 1000


class SampleSource(NamedTuple):
    """The samples of one kind in a published set.

    flip: the axis of the flipped copy, or "" for the images themselves
    indices: of the images in the set

    >>> from adbench.datasets.idx import SampleSource
    >>> turned = SampleSource("MNIST", "test", True, "vertical", np.array([0, 5, 7]))
    >>> turned.label, len(turned.indices)
    (True, 3)
    """

    name: str
    published_set: str
    label: bool
    flip: str
    indices: Array


class Idx(ArrayDataset):
    """Images of one set or some classes as normal, others as abnormal.

    Published train and test sets stay: train, held_out and val come from the one, test from the
    other. Equal images count as one: those of the training set that are in the test set are left
    out (split="published" keeps them).

    root: the folder that holds the sets; else $ADBENCH_DATA
    inside: the set that is normal
    outside: sets that are not; MNIST if no other argument names what is abnormal
    normal_classes: classes of `inside` that are normal; its others are not. Then the training set
        has labelled abnormal images
    flips: of "vertical", "horizontal", "both": copies of normal images, turned over, are not normal
    size: pixels, rows and columns, that images are stretched to; None keeps them
    most: at most so many images of every kind in each published set; which, the seed decides
    fractions: of the training images in train, held_out and val

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.idx import Idx
    >>> with TemporaryDirectory() as root:
    ...     for pool, start in (("train", 0), ("test", 100)):
    ...         folder = Path(root, "Digits", "numpy", pool)
    ...         folder.mkdir(parents=True)
    ...         for i in range(40):
    ...             np.save(folder / f"{i}.npy", np.full((8, 8), start + i, np.uint8))
    ...     data = Idx(inside="Digits", flips="vertical", fractions=[0.5, 0.25, 0.25])
    ...     index = data.build_index(Path(root))
    >>> sorted({case.name.rpartition("/")[0] for case in index.cases})
    ['Digits/test/normal/test', 'Digits/test/vertical/test', 'Digits/train/normal/held_out',
     'Digits/train/normal/train', 'Digits/train/normal/val', 'Digits/train/vertical/val']
    """

    name = "idx"
    expected = "<root>/FashionMNIST/raw/{train,t10k}-images-idx3-ubyte.gz, <root>/MNIST/raw/..."

    def __init__(
        self,
        *,
        root: str | None = None,
        inside: str = "FashionMNIST",
        outside: str | Sequence[str] | None = None,
        normal_classes: Many[Natural] | None = None,
        flips: Flip | Sequence[Flip] = (),
        size: Count | None = None,
        most: Count | None = None,
        split: Literal["corrected", "published"] = "corrected",
        fractions: ThreeFractions = (0.9, 0.05, 0.05),
        seed: Natural = 0,
    ) -> None:
        flips = [flips] if isinstance(flips, str) else list(flips)
        unknown = set(flips) - set(FLIPS)
        if unknown:
            raise ValueError(f"flips are {', '.join(FLIPS)}, not {sorted(unknown)}")
        if any(n is not None and n < 1 for n in (size, most)):
            raise ValueError("size and most are positive numbers")
        if outside is None and normal_classes is None and not flips:
            outside = ["MNIST"]
        outside = [outside] if isinstance(outside, str) else list(outside or ())
        if inside in outside:
            raise ValueError(f"{inside} cannot be inside and outside")
        self.root, self.inside, self.outside, self.flips = root, inside, outside, flips
        self.normal_classes = None if normal_classes is None else sorted(normal_classes)
        self.size, self.most, self.seed = size, most, seed
        self.split = check_split_policy(split)
        self.fractions = check_fractions(fractions, 3)
        self._case_samples: dict[str, list[ArraySample]] = {}
        self._sets: dict[tuple[str, str], PublishedSet] = {}

    def prepare(self, progress: Progress = no_progress) -> None:
        super().prepare(progress)
        self._sets = {}  # all images, which the prepared file holds too

    def build_index(self, root: Path) -> DatasetIndex:
        problems: list[str] = []
        self._sets, self._case_samples = {}, {}
        for name in (self.inside, *self.outside):
            folder = self._set_folder(root, name)
            pools, set_problems = read_published_sets(folder, name)
            problems += set_problems
            self._sets |= {(name, published_set): pool for published_set, pool in pools.items()}
            if (holds_pickles(folder) or holds_pickles(root)) and not pools:
                problems.append(
                    f"{name} is stored as pickle, which can run any code and is not read: save "
                    f"each image as uint8 (C, H, W) with numpy.save, as {name}/numpy/train/0.npy"
                )
            elif not pools and not set_problems:
                raise self.no_data_error(f"no images of {name} lie in {folder}")
            elif not problems:
                missing = {"train", "test"} - set(pools)
                problems += [
                    f"{name} has no {published_set} set in {folder}"
                    for published_set in sorted(missing)
                ]
        if problems:
            raise DataError(f"these sets are unusable. {self._repair_advice()}", problems)
        self._set_spec()
        cases, notes = self._build_cases()
        used_folders = {path.parent for case in cases for path in case.files.values()}
        left_out = {
            path: "not one of the sets `inside` and `outside`"
            for path in (list_directory(root) if root.is_dir() else ())
            if path.is_dir() and not any(path in (f, *f.parents) for f in used_folders)
        }
        label_files = [p.files["labels"] for p in self._sets.values() if "labels" in p.files]
        return DatasetIndex(cases, (), notes, label_files, left_out)

    def _set_folder(self, root: Path, name: str) -> Path:
        """Return the folder of a set: below root, beside root, one level deeper, or root itself."""
        children = (
            [path / name for path in list_directory(root) if path.is_dir()] if root.is_dir() else []
        )
        beside = root.parent / name
        direct = resolve_case(root, name)
        places = [direct, *([beside] if root.name == self.inside else []), *children]
        fallback = [] if self.outside else [root]
        return next((path for path in places if path.is_dir()), *fallback or [root / name])

    def _set_spec(self) -> None:
        """Set `spec` from the images.

        Raises DataError if sets differ in shape, or classes are missing.
        """
        first = self._sets[self.inside, "train"].images.shape[1:]
        for (name, _), pool in self._sets.items():
            extent = pool.images.shape[1:]
            if extent[0] != first[0] or (self.size is None and extent != first):
                advice = "choose sets of as many channels" if extent[0] != first[0] else "size=32"
                difference = f"{name} has images of {extent}, {self.inside} of {first} ({advice})"
                raise DataError(f"dataset 'idx': {difference}")
        if self.normal_classes is not None:
            for published_set in ("train", "test"):
                labels = self._sets[self.inside, published_set].labels
                if labels is None:
                    raise DataError(
                        f"{self.inside} has no labels for its {published_set} set, so no classes"
                    )
                missing = set(self.normal_classes) - set(labels.tolist())
                if missing or set(labels.tolist()) == set(self.normal_classes):
                    classes = sorted(set(labels.tolist()))
                    difference = (
                        f"normal_classes={self.normal_classes} are none, or all, of {classes}"
                    )
                    raise DataError(f"{self.inside} ({published_set}): {difference}")
        shape = (self.size, self.size) if self.size else tuple(first[1:])
        labelled = self.normal_classes is not None
        self.spec = Spec(first[0], shape, labels=labelled, masks=False)

    def _build_cases(self) -> tuple[list[Case], list[str]]:
        first_of, dropped, notes = self._find_duplicates()
        cases: list[Case] = []
        fractions: dict[str, float] = dict(
            zip(("train", "held_out", "val"), self.fractions, strict=True)
        )
        for source in self._sample_sources():
            name, published_set, label, flip, among = source
            pool = self._sets[name, published_set]
            keys = {f"{name}/{published_set}/{index:05d}": index for index in among.tolist()}
            sample_keys = [sample_key for sample_key in keys if sample_key not in dropped]
            group = [first_of.get(sample_key, sample_key) for sample_key in sample_keys]
            split_of = dict.fromkeys(group, "test")
            if published_set == "train":
                split_of = assign_groups(group, fractions, self.seed)
            allowed_splits = {"val"} if flip or name != self.inside else {"train", "val"}
            rows = []
            for sample_key, group_name in zip(sample_keys, group, strict=True):
                split = split_of[group_name]
                if published_set == "test" or not label or split in allowed_splits:
                    rows.append(
                        ArraySample(
                            keys[sample_key],
                            f"{sample_key}/{flip}" if flip else sample_key,
                            group_name,
                            label,
                            split,
                        )
                    )
            case_prefix = f"{name}/{published_set}/{flip or ('abnormal' if label else 'normal')}"
            for case in self._make_cases(rows, pool.files, case_prefix, SAMPLES_PER_CASE):
                samples = self._case_samples[case.name] if pool.image_files else ()
                image_files = {str(row.position): pool.image_files[row.position] for row in samples}
                cases.append(replace(case, files=image_files or case.files))
        return cases, notes

    def _sample_sources(self) -> list[SampleSource]:
        sources = []
        for (name, published_set), pool in self._sets.items():
            count = len(pool.images)
            if name != self.inside:
                sources.append(
                    SampleSource(
                        name,
                        published_set,
                        True,
                        "",
                        self._subsample(np.arange(count), name, published_set),
                    )
                )
                continue
            normal = np.ones(count, bool)
            if self.normal_classes is not None and pool.labels is not None:
                normal = np.isin(pool.labels, self.normal_classes)
                others = self._subsample(np.flatnonzero(~normal), "others", published_set)
                sources.append(SampleSource(name, published_set, True, "", others))
            indices = self._subsample(np.flatnonzero(normal), name, published_set)
            sources.append(SampleSource(name, published_set, False, "", indices))
            sources += [
                SampleSource(name, published_set, True, flip, indices) for flip in self.flips
            ]
        return sources

    def _subsample(self, indices: Array, name: str, published_set: str) -> Array:
        if self.most is None or len(indices) <= self.most:
            return indices
        stream_name = f"{self.seed} {name} {published_set}".encode()
        rng = np.random.default_rng(
            int.from_bytes(blake2b(stream_name, digest_size=8).digest(), "big")
        )
        return np.sort(rng.choice(indices, self.most, replace=False))

    def _find_duplicates(self) -> tuple[dict[str, str], set[str], list[str]]:
        """Return the first image of each group of equal ones, the training images that are also in
        a test set, and notes on them."""
        first_keys: dict[bytes, str] = {}
        first_of, shared = {}, list[str]()
        for current_set in ("test", "train"):
            for (name, published_set), pool in self._sets.items():
                for index in range(len(pool.images) if published_set == current_set else 0):
                    image = np.ascontiguousarray(pool.images[index]).tobytes()
                    key = f"{name}/{current_set}/{index:05d}"
                    first = first_keys.setdefault(blake2b(image, digest_size=16).digest(), key)
                    if first != key:
                        first_of[key] = first
                        if current_set == "train" and first.split("/")[1] == "test":
                            shared.append(key)
        self.leaky = bool(shared) and self.split == "published"
        if not shared:
            return first_of, set(), []
        note = overlap_note(
            shared,
            "images",
            pool="the training set",
            other="the test set",
            published=self.leaky,
        )
        return first_of, set() if self.leaky else set(shared), [note]

    def read(self, case: Case) -> CaseSamples:
        name, published_set, kind = case.name.split("/")[:3]
        pool = self._sets[name, published_set]
        samples, constant_count = [], 0
        for row in self._case_samples[case.name]:
            image = torch.from_numpy(pool.images[row.position].astype(np.float32) / 255)
            if kind in FLIPS:
                turned = image.flip(FLIPS[kind])
                if bool((turned == image).all()):
                    continue  # the same either way round: no anomaly
                image = turned
            constant = bool((image == image.flatten()[0]).all())
            constant_count += constant
            if constant and row.split in ("train", "held_out"):
                continue
            if self.size is not None:
                image = resize(image, (self.size, self.size))
            tags = {"set": name}
            if pool.labels is not None:
                tags["class"] = str(int(pool.labels[row.position]))
            if kind in FLIPS:
                tags["flip"] = kind
            samples.append(Sample(image, row.key, row.group, row.label, tags=tags))
        count_name = "images that hold one value only, which no method trains on"
        counts = {count_name: constant_count} if constant_count else {}
        shape = " x ".join(map(str, pool.images.shape[2:]))
        return CaseSamples(samples, counts=counts, stored_shape=shape)

    def _shared_group_problems(
        self, cases: Sequence[Case], split_of: Mapping[str, str]
    ) -> list[str]:
        return []  # build_index assigned whole groups
