"""Post-processing of stacked slices, and the protocols of papers, on made-up volumes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score

from adbench.benchmark.evaluation.evaluate import evaluate
from adbench.benchmark.evaluation.in_memory_ground_truth import InMemoryGroundTruth
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.named_protocols import (
    NAMED_PROTOCOLS,
    parse_protocol,
    parse_protocols,
    protocol_name,
)
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.evaluation.protocol_values import ProtocolError
from adbench.benchmark.evaluation.volume_stacks import volume_stacks

DEPTH, SIZE, PATIENTS = 6, 10, 6


@pytest.fixture(scope="module")
def volumes() -> dict[str, np.ndarray]:
    """Maps, masks and regions of six patients, (6, 6, 10, 10); the last two have no lesion."""
    rng = np.random.default_rng(5)
    shape = (PATIENTS, DEPTH, SIZE, SIZE)
    mask, roi = np.zeros(shape, bool), np.zeros(shape, bool)
    roi[..., 1:9, 1:9] = True
    for patient in range(4):
        mask[patient, 1 : 4 + patient % 2, 3 : 5 + patient, 3:7] = True
    maps = (rng.random(shape) + mask * rng.random((PATIENTS, 1, 1, 1))).astype(np.float32)
    return {"map": maps, "mask": mask & roi, "roi": roi}


def slices(volumes: dict[str, np.ndarray], *, shuffled: bool = False) -> Predictions:
    """The volumes as slices, in the order of a dataset, or in any order."""
    keys = [f"p{p}/z{z:03d}" for p in range(PATIENTS) for z in range(8, 8 + DEPTH)]
    order = np.random.default_rng(1).permutation(len(keys)) if shuffled else np.arange(len(keys))
    arrays = {k: v.reshape(-1, SIZE, SIZE)[order] for k, v in volumes.items()}
    keys = [keys[i] for i in order]
    return Predictions(
        keys=keys,
        groups=[key[:2] for key in keys],
        label=np.asarray(arrays["mask"].any((1, 2))),
        mask=arrays["mask"],
        roi=arrays["roi"],
        spacing=None,
        tags=[{} for _ in keys],
        score=arrays["map"].mean((1, 2))[None],
        map=arrays["map"][None],
    )


def whole(volumes: dict[str, np.ndarray]) -> Predictions:
    keys = [f"p{p}" for p in range(PATIENTS)]
    return Predictions(
        keys, keys, np.asarray(volumes["mask"].any((1, 2, 3))), volumes["mask"], volumes["roi"],
        None, [{} for _ in keys], volumes["map"].mean((1, 2, 3))[None], volumes["map"][None],
    )  # fmt: skip


def test_slices_are_stacked_in_the_order_of_their_numbers(volumes):
    split = slices(volumes, shuffled=True)
    stacks = volume_stacks(split.keys, split.groups)
    assert [[split.keys[i] for i in stack] for stack in stacks] == [
        [f"p{p}/z{z:03d}" for z in range(8, 8 + DEPTH)] for p in range(PATIENTS)
    ]
    assert volume_stacks(["p-10", "p-9", "x/z-10", "x/z+05"], ["p", "p", "x", "x"]) == [
        [1, 0],
        [2, 3],
    ]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    "post",
    [("volume-median3",), ("volume-fill",), ("volume-erode3",), ("zero2", "volume-median4")],
)
def test_stacked_slices_are_filtered_like_volumes(volumes, post, shuffled):
    protocol = Protocol(post=post)
    split = slices(volumes, shuffled=shuffled)
    truth = InMemoryGroundTruth(split, protocol)
    expected = InMemoryGroundTruth(whole(volumes), protocol)
    order = [
        int(key[1]) * DEPTH + int(key[-3:]) - 8 for key in split.keys
    ]  # where each slice lies in the volumes
    maps = expected.filtered_maps(0).reshape(-1, SIZE, SIZE)[order]
    assert (truth.filtered_maps(0) == maps).all()
    assert truth.roi is not None and expected.roi is not None
    assert (truth.roi == expected.roi.reshape(-1, SIZE, SIZE)[order]).all()
    level = truth.at_level(0)
    assert isinstance(level.pixels, PixelScores)
    assert (level.pixels.score == maps[truth.roi]).all()


def test_filters_are_those_of_scipy(volumes):
    maps, roi = volumes["map"], volumes["roi"]
    for k in range(PATIENTS):
        median = Protocol(post=("volume-median3",)).filter_maps(maps[k])
        assert (median == ndimage.median_filter(maps[k], 3)).all()
        eroded = Protocol(post=("volume-erode3",)).erode_roi(roi[k])
        assert (eroded == ndimage.binary_erosion(roi[k], np.ones((3,) * 3), border_value=1)).all()
        inside = Protocol(post=("zero1",)).filter_maps(maps[k], roi[k]) != 0
        cross = ndimage.generate_binary_structure(2, 1)[None]
        assert (inside == ndimage.binary_erosion(roi[k], cross, border_value=1)).all()
        assert (Protocol(post=("zero0",)).filter_maps(maps[k], roi[k])[~roi[k]] == 0).all()


def test_components_are_joined_through_slices():
    masks = np.zeros((1, 3, 6, 6), bool)
    masks[0, :, 2, 2] = True  # three voxels in a column
    masks[0, 0, 5, 4:] = True  # two in a row
    keys, none = ["p/z1", "p/z2", "p/z3"], None
    split = Predictions(
        keys, ["p"] * 3, np.ones(3, bool), masks[0], none, none, [{}] * 3, none,
        masks.astype(np.float32).reshape(1, 3, 6, 6),
    )  # fmt: skip
    for post, remaining in {"components>=3": 0, "volume-components>=3": 3}.items():
        truth = InMemoryGroundTruth(split, Protocol(post=(post,)))
        pixels = truth.at_level(0).pixels
        assert isinstance(pixels, PixelScores) and truth.binarize(pixels, 0.5).sum() == remaining


@pytest.mark.parametrize("name", ["pddpm", "uad-imag", "bmad", "mood", "mvtec", "adbench"])
def test_each_named_protocol_judges_the_same_maps(volumes, name):
    split, named = slices(volumes), NAMED_PROTOCOLS[name]
    record, results = evaluate(split, split, split, [250], 250, named.protocol)
    for metric in named.metrics:
        assert record["metrics"][metric]["value"] is not None, metric
    assert protocol_name(named.protocol) == name and named.source and named.pooling
    assert parse_protocol(name) == named.protocol
    low, high = (record["metrics"]["volume_dice"][part] for part in ("low", "high"))
    assert low <= record["metrics"]["volume_dice"]["value"] <= high
    assert len(results.replicates["volume_dice"]) == 2000


def test_pddpm_is_what_a_loop_over_volumes_makes_of_the_maps(volumes):
    """Residual in the eroded brain, 3-D median, threshold of validation, 3-D components, Dice."""
    split, protocol = slices(volumes), parse_protocol("pddpm")
    record, _ = evaluate(split, split, split, [250], 250, protocol)
    threshold, dices, aps = record["threshold"]["value"], [], []
    for maps, mask, roi in zip(volumes["map"], volumes["mask"], volumes["roi"], strict=True):
        brain = np.stack([ndimage.binary_erosion(r, iterations=3, border_value=1) for r in roi])
        filtered = ndimage.median_filter(maps * brain, 5)
        labels = np.zeros(mask.shape, int)
        ndimage.label(filtered > threshold, np.ones((3,) * 3), output=labels)
        positive = np.zeros_like(mask)
        for number in range(1, int(labels.max()) + 1):
            part = labels == number
            if np.asarray(ndimage.binary_fill_holes(part, np.ones((3,) * 3))).sum() >= 8:
                positive |= part
        if mask.any():
            dices.append(2 * (positive & mask).sum() / (positive.sum() + mask.sum()))
            aps.append(average_precision_score(mask.ravel(), filtered.ravel()))
    assert record["metrics"]["volume_dice"]["value"] == pytest.approx(np.mean(dices))
    assert record["metrics"]["volume_ap"]["value"] == pytest.approx(np.mean(aps))


def test_a_threshold_for_the_mean_dice_of_volumes_is_the_best_on_validation(volumes):
    split = slices(volumes)
    record, _ = evaluate(split, split, split, [250], 250, Protocol("val-volume-dice"))
    metrics = record["metrics"]
    bound = metrics["volume_dice_oracle"]["value"]
    assert metrics["volume_dice"]["value"] == pytest.approx(bound)


def test_several_protocols_are_read_from_one_text():
    pddpm, changed = parse_protocols("pddpm,adbench,post=median5+fill")
    assert pddpm == NAMED_PROTOCOLS["pddpm"].protocol and changed.post == ("median5", "fill")
    assert parse_protocols("") == [Protocol()] == parse_protocols("adbench,adbench")
    with pytest.raises(ProtocolError, match="names 2 protocols"):
        parse_protocol("pddpm,adbench")


@pytest.mark.parametrize("step", ["volume-fill3", "volume-cross3", "volume-median0", "volum-fill"])
def test_a_wrong_step_is_one_line(step):
    with pytest.raises(ProtocolError, match="unknown protocol post step"):
        Protocol(post=(step,))


def test_signals_have_no_volumes():
    with pytest.raises(ProtocolError, match="signals of one axis"):
        Protocol(post=("volume-median3",)).filter_maps(np.zeros((2, 8), np.float32))
