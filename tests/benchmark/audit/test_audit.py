"""The audit finds every kind of leak that was planted, and finds none in clean sets."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from adbench.benchmark.audit.audit import Audit, audit
from adbench.benchmark.audit.sample_summary import compute_cues, summarize
from adbench.datasets.base import Dataset, Sample, Spec, Split
from adbench.datasets.hdf5_file import HDF5
from adbench.datasets.phantom import Phantom
from adbench.datasets.synthbrain.dataset import Role, SynthBrain

Lists = dict[str, list[Sample]]
pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore:.*each counts as a patient of its own"),
]
SHAPES = [(256,), (48, 48), (14, 14, 14)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path / "cache"))


class ListDataset(Dataset):
    """Splits as lists."""

    def __init__(self, parts: Lists, labelled: Sequence[Sample] = ()) -> None:
        first = parts["test"][0].x
        self.parts, self.abnormal = parts, list(labelled)
        self.spec = Spec(len(first), tuple(first.shape[1:]), labels=bool(labelled))

    def train(self, *, labelled: bool = False) -> Split:
        return self.parts["train"] + (self.abnormal if labelled else [])

    def calibration(self) -> Split:
        return self.parts["calibration"]

    def val(self) -> Split:
        return self.parts["val"]

    def test(self) -> Split:
        return self.parts["test"]


def listed(split: Split) -> list[Sample]:
    return [sample for sample in split]


def heads(shape: Sequence[int] = (48, 48), seed: int = 0) -> Lists:
    data = Phantom(shape=shape, train=24, abnormal=4, held_out=8, val=6, test=8, seed=seed)
    splits = (data.train(), data.calibration(), data.val(), data.test())
    return dict(zip(("train", "calibration", "val", "test"), map(listed, splits), strict=True))


def textures(size: int = 32) -> Lists:
    """Plain noise: no image has anything to do with another."""

    def noise(part: str, count: int) -> list[Sample]:
        rng = np.random.default_rng(len(part))
        x = torch.from_numpy(rng.uniform(0.3, 0.7, (count, 1, size, size)).astype(np.float32))
        return [
            Sample(x[n], f"{part}-{n:03d}", f"{part}-{n:03d}", n % 2 == 1) for n in range(count)
        ]

    parts = {part: noise(part, count) for part, count in (("val", 6), ("test", 12))}
    for part, count in (("train", 24), ("calibration", 8)):
        parts[part] = [replace(sample, label=False) for sample in noise(part, count)]
    return parts


def kinds(result: Audit, severity: str = "leak") -> set[str]:
    return {f.kind for f in result.findings if f.severity == severity}


def copy(sample: Sample, x: torch.Tensor, **more) -> Sample:
    return replace(sample, x=x, key="planted-copy", group="planted", counterpart=None, **more)


def jpeg(x: torch.Tensor) -> torch.Tensor:
    raw = io.BytesIO()
    Image.fromarray((x[0] * 255).round().byte().numpy()).save(raw, "JPEG", quality=75)
    return torch.from_numpy(np.asarray(Image.open(raw)).astype(np.float32) / 255)[None]


def gray_levels(x: torch.Tensor) -> torch.Tensor:
    step = np.random.default_rng(0).integers(-1, 2, tuple(x.shape)).astype(np.float32) / 255
    return (x + torch.from_numpy(step)).clamp(0, 1)


def brighter(x: torch.Tensor) -> torch.Tensor:
    return (1.05 * x + 0.02).clamp(0, 1)


def one_value(x: torch.Tensor) -> torch.Tensor:
    changed = x.clone()
    changed.flatten()[0] += 1 / 255
    return changed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_clean_heads_and_signals_pass(shape, seed) -> None:
    result = audit(ListDataset(heads(shape, seed)))
    assert not kinds(result), result.findings


def test_clean_textures_pass() -> None:
    assert not audit(ListDataset(textures())).findings


@pytest.mark.parametrize("part", ["train", "calibration", "val"])
@pytest.mark.parametrize("make", [heads, textures], ids=["heads", "textures"])
@pytest.mark.parametrize("change", [jpeg, gray_levels, brighter, one_value])
def test_what_is_almost_a_copy_is_found(make, change: Callable, part) -> None:
    parts = make()
    source = next(s for s in parts["test"] if not s.label)
    parts[part].append(copy(source, change(source.x)))
    result = audit(ListDataset(parts))
    (finding,) = (f for f in result.findings if f.severity == "leak")
    assert finding.kind == "almost copies" and finding.count == 1
    assert "planted-copy" in str(finding) and source.key in str(finding)
    assert f"{part} and test" in finding.sentence


@pytest.mark.parametrize("shape", [(256,), (14, 14, 14)], ids=str)
@pytest.mark.parametrize("change", [gray_levels, brighter])
def test_almost_copies_of_signals_and_volumes_are_found(shape, change: Callable) -> None:
    parts = heads(shape)
    source = parts["test"][2]
    parts["train"].append(copy(source, change(source.x)))
    assert kinds(audit(ListDataset(parts))) == {"almost copies"}


def test_many_copies_are_counted_and_few_are_named() -> None:
    parts = textures()
    for n, source in enumerate(parts["test"][:8]):
        near = copy(source, gray_levels(source.x), label=False)
        parts["train"].append(replace(near, key=f"planted-{n}", group=f"planted-{n}"))
    leaks = {f.kind: f for f in audit(ListDataset(parts)).findings if f.severity == "leak"}
    assert leaks["almost copies"].count == 8 and len(leaks["almost copies"].ids) == 5
    assert str(leaks["almost copies"]).endswith(", ...")
    assert leaks["abnormal in normal"].count == 4  # every other source is abnormal


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_copies_to_the_last_bit_are_found(shape) -> None:
    parts = heads(shape)
    parts["val"].append(copy(parts["train"][3], parts["train"][3].x))
    (finding,) = (f for f in audit(ListDataset(parts)).findings if f.severity == "leak")
    assert finding.kind == "copies" and "1 sample in train and val" in str(finding)
    assert "train/00003 = planted-copy" in str(finding)


def test_a_copy_within_a_split_is_only_a_note() -> None:
    parts = heads()
    parts["test"].append(copy(parts["test"][0], parts["test"][0].x))
    result = audit(ListDataset(parts))
    assert not kinds(result) and kinds(result, "note") == {"copies"}


def test_samples_that_hold_one_value_are_no_copies() -> None:
    parts = heads()
    for part in ("train", "test"):
        blank = copy(parts[part][0], torch.zeros(1, 48, 48), label=False, mask=None)
        parts[part].append(replace(blank, key=f"{part}-blank", group=f"{part}-blank"))
    assert not kinds(audit(ListDataset(parts)))


def test_a_patient_in_two_splits_is_found() -> None:
    parts = heads()
    parts["test"][1] = replace(parts["test"][1], group=parts["train"][5].group)
    parts["val"][0] = replace(parts["val"][0], group=parts["train"][6].group)
    leaks = [f for f in audit(ListDataset(parts)).findings if f.severity == "leak"]
    assert {f.kind for f in leaks} == {"subjects"}
    assert {str(f) for f in leaks} == {
        "1 subject in train and test: train/00005",
        "1 subject in train and val: train/00006",
    }


def test_the_labelled_training_set_counts_as_training() -> None:
    parts = heads()
    extra = Phantom(shape=(48, 48), train=0, abnormal=4, held_out=0, val=0, test=0)
    labelled = listed(extra.train(labelled=True))
    result = audit(ListDataset(parts, labelled))
    assert not kinds(result) and result.samples["train-abnormal"] == {"abnormal": 4}
    parts["test"].append(replace(labelled[2], key="again", group="again"))
    (finding,) = (f for f in audit(ListDataset(parts, labelled)).findings if f.severity == "leak")
    assert "1 sample in train and test, equal to the last bit" in str(finding)


def test_abnormal_samples_where_normal_ones_belong_are_found() -> None:
    parts = heads()
    ill = next(s for s in heads(seed=9)["test"] if s.label)
    parts["train"].append(replace(ill, key="labelled", group="labelled"))
    parts["calibration"].append(
        replace(ill, key="marked", group="marked", label=False, x=1 - ill.x)
    )
    text = [str(f) for f in audit(ListDataset(parts)).findings if f.kind == "abnormal in normal"]
    assert "1 sample in train, which are labelled abnormal: labelled" in text
    assert "1 sample in calibration, whose masks mark an anomaly: marked" in text


def test_a_normal_training_sample_that_is_nearly_an_abnormal_one_is_found() -> None:
    parts = heads()
    ill = next(s for s in parts["test"] if s.label)
    parts["train"].append(copy(ill, jpeg(ill.x), label=False, mask=None))
    leaks = {f.kind: str(f) for f in audit(ListDataset(parts)).findings if f.severity == "leak"}
    assert "1 normal sample almost the same as an abnormal one" in leaks["abnormal in normal"]


def slices(*, torn: bool) -> Lists:
    """Volumes in slices: whole ones in each split, or every third slice in another."""
    volumes = listed(Phantom(shape=(24, 24, 24), train=8, held_out=0, val=0, test=0).train())
    names = ["train"] * 4 + ["calibration", "val", "test", "test"]
    parts: Lists = {part: [] for part in ("train", "calibration", "val", "test")}
    for n, (volume, part) in enumerate(zip(volumes, names, strict=True)):
        for z in range(6, 18):
            where = "test" if torn and n == 0 and z % 3 == 0 else part
            group = f"v{n}-{z}" if torn else f"v{n}"
            parts[where].append(Sample(volume.x[:, z], f"v{n}/z{z:03d}.png", group, False))
    return parts


def test_neighbouring_slices_in_two_splits_are_found() -> None:
    assert not kinds(audit(ListDataset(slices(torn=False))))
    (finding,) = (
        f for f in audit(ListDataset(slices(torn=True))).findings if f.kind == "neighbours"
    )
    assert finding.severity == "leak" and "in train and test" in finding.sentence
    assert "v0/z006.png | v0/z007.png" in finding.ids


def test_numbers_in_names_alone_make_no_neighbours() -> None:
    parts = textures()
    everything = [sample for split in parts.values() for sample in split]
    for n, sample in enumerate(np.random.default_rng(0).permutation(len(everything))):
        target = everything[int(sample)]
        for split in parts.values():
            for i, other in enumerate(split):
                if other is target:
                    split[i] = replace(other, key=f"image-{n:04d}", group=f"image-{n:04d}")
    assert not kinds(audit(ListDataset(parts)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean intensity", lambda x, rng: (x + 0.1 * (x > 0)).clamp(0, 1)),
        ("foreground area", lambda x, rng: x * (torch.arange(x.shape[-1]) > 16)),
        (
            "noise level",
            lambda x, rng: x + 0.1 * torch.from_numpy(rng.normal(size=x.shape)) * (x > 0),
        ),
    ],
)
def test_a_cheap_cue_is_called_a_confound(name, change: Callable) -> None:
    data = Phantom(shape=(48, 48), train=8, held_out=4, val=0, test=24)
    parts = {"train": listed(data.train()), "calibration": listed(data.calibration()), "val": []}
    rng = np.random.default_rng(0)
    normal = [s for s in data.test() if not s.label]
    parts["test"] = normal[:12] + [
        replace(s, x=change(s.x, rng).float().clamp(0, 1), label=True, roi=None)
        for s in normal[12:]
    ]
    result = audit(ListDataset(parts))
    assert any(f.kind == "cue" and f.sentence.startswith(f"{name} alone") for f in result.findings)
    assert {f.severity for f in result.findings if f.kind == "cue"} == {"confound"}
    assert next(c for c in result.cues if c.name == name).auroc in (0, 1) or name != "noise level"
    clean = audit(
        ListDataset(parts | {"test": normal[:12] + [replace(s, label=True) for s in normal[12:]]})
    )
    assert not kinds(clean, "confound")


def test_power_is_a_cue_of_signals_only() -> None:
    signal = heads((256,))["test"][0]
    assert set(summarize(signal).cues) - set(summarize(heads()["test"][0]).cues) == {"power"}
    x = np.tile(np.array([0.5, 1.0], np.float32), 50)[None]
    assert compute_cues(x, None)["power"] == pytest.approx(0.125)


@pytest.mark.parametrize("shape", [(20000,), (150, 150), (28, 28, 28)], ids=str)
@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_the_noise_level_is_the_standard_deviation_of_white_noise(shape, sigma) -> None:
    axes = [np.linspace(0, 1, n) for n in shape]
    smooth = sum(np.ix_(*axes)) / len(shape)  # slopes and offsets are no noise
    noise = sigma * np.random.default_rng(0).normal(size=shape)
    level = compute_cues((smooth + noise)[None].astype(np.float32), None)["noise level"]
    assert level == pytest.approx(sigma, rel=0.05)


def test_the_foreground_is_the_roi_or_what_is_not_zero() -> None:
    x = np.zeros((1, 10, 10), np.float32)
    x[:, 2:6, 2:7] = 0.5
    assert compute_cues(x, None)["foreground area"] == pytest.approx(0.2)
    assert compute_cues(x, None)["mean intensity"] == pytest.approx(0.5)
    roi = np.zeros((10, 10), bool)
    roi[2:6, 2:9] = True
    assert compute_cues(x, roi)["foreground area"] == pytest.approx(0.28)
    assert compute_cues(x, roi)["mean intensity"] == pytest.approx(0.5 * 20 / 28)


def test_what_is_empty_or_one_sided_is_noted() -> None:
    parts = heads()
    parts["val"], parts["test"] = [], [s for s in parts["test"] if s.label]
    text = {str(f) for f in audit(ListDataset(parts)).findings}
    assert {"val is empty", "test has no normal sample"} <= text


def test_the_result_is_json_and_progress_is_told() -> None:
    parts, steps = heads(), set()
    result = audit(ListDataset(parts), progress=lambda what, done, total: steps.add(what))
    again = json.loads(json.dumps(asdict(result)))
    assert again["samples"]["test"] == {"normal": 8, "abnormal": 8}
    assert len(again["cues"]) == 2 * 5
    assert {"reading train", "reading test", "comparing splits"} <= steps


def test_two_samples_a_split_are_enough() -> None:
    parts = {part: split[:2] for part, split in textures().items()}
    assert not kinds(audit(ListDataset(parts)))
    parts["test"].append(copy(parts["train"][0], gray_levels(parts["train"][0].x)))
    assert kinds(audit(ListDataset(parts))) == {"almost copies"}


def test_made_up_brains_pass() -> None:
    subjects: dict[Role, int] = {"train": 6, "train-abnormal": 2, "held_out": 3, "val": 2}
    subjects |= {"val-abnormal": 2, "test": 4, "test-abnormal": 4}
    data = SynthBrain(preset="demo", subjects=subjects)
    assert not kinds(audit(data))


def test_a_dataset_of_files_is_looked_at_as_well(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0.3, 0.7, (40, 16, 16)).astype(np.float32)
    split = ["train"] * 20 + ["val"] * 8 + ["test"] * 12

    def write() -> Dataset:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"], file["label"], file["split"] = (
                x,
                np.arange(40) % 2 * (np.arange(40) > 19),
                split,
            )
        return HDF5(root=str(tmp_path / "a.h5"))

    assert not kinds(audit(write()))
    x[33] = gray_levels(torch.from_numpy(x[4])).numpy()
    (finding,) = (f for f in audit(write()).findings if f.kind == "almost copies")
    assert finding.ids == ("a/000004 ~ a/000033",)
