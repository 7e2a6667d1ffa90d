"""Subgroups by metadata: which there are, their metrics by a second computation, and gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from adbench.benchmark.evaluation.evaluate import evaluate
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.evaluation.subgroups import MAX_SUBGROUPS, metadata_fields

HALF = np.arange(60) % 2 == 1
TRUTH = np.zeros((60, 8, 8), bool)
TRUTH[HALF, 2:5, 2:5] = True


def predictions(tags: list[dict[str, str]], bias: np.ndarray | float = 0.0) -> Predictions:
    """60 patients of one image; abnormal scores are higher by 1, less `bias` of each."""
    rng = np.random.default_rng(0)
    maps = rng.random((60, 8, 8)) + TRUTH * (1.0 - np.broadcast_to(bias, 60))[:, None, None]
    keys = [f"patient {i}" for i in range(60)]
    return Predictions(keys, keys, HALF, TRUTH, None, None, tags, None,
        maps.astype(np.float32)[None])  # fmt: skip


def metadata_of(split: Predictions) -> dict:
    return evaluate(split, split, split, [0], 0, Protocol(reducer="max"))[0]["metadata"]


def test_metrics_are_those_of_the_samples_alone() -> None:
    sex = np.where(np.arange(60) < 24, "F", "M")
    split = predictions([{"sex": s} for s in sex], np.where(sex == "F", 0.0, 0.9))
    field = metadata_of(split)["sex"]
    for name, subgroup in field["subgroups"].items():
        members = sex == name
        maps, truth = split.map[0][members], TRUTH[members]
        score = maps.reshape(len(maps), -1).max(1)
        assert subgroup["n"] == subgroup["n_groups"] == members.sum()
        assert subgroup["n_abnormal"] == (members & HALF).sum()
        metrics = subgroup["metrics"]
        assert metrics["image_auroc"]["value"] == pytest.approx(roc_auc_score(HALF[members], score))
        expected = average_precision_score(truth.ravel(), maps.ravel())
        assert metrics["pixel_ap"]["value"] == pytest.approx(expected)
        for metric in metrics.values():
            assert metric["low"] <= metric["value"] <= metric["high"]
    gap = field["gaps"]["pixel_ap"]
    assert (gap["higher"], gap["lower"], gap["pairs"]) == ("F", "M", 1)
    values = [field["subgroups"][s]["metrics"]["pixel_ap"]["value"] for s in "FM"]
    assert gap["value"] == pytest.approx(values[0] - values[1])
    assert 0 < gap["low"] < gap["value"] < gap["high"]


def test_the_dice_of_subgroups_is_at_one_threshold() -> None:
    site = np.where(np.arange(60) % 4 < 2, "A", "B")
    split = predictions([{"site": s} for s in site])
    record = evaluate(split, split, split, [0], 0, Protocol())[0]
    threshold = record["threshold"]["value"]
    for name, subgroup in record["metadata"]["site"]["subgroups"].items():
        positive = split.map[0][site == name] > threshold
        truth = TRUTH[site == name]
        dice = 2 * (positive & truth).sum() / (positive.sum() + truth.sum())
        assert subgroup["metrics"]["pixel_dice"]["value"] == pytest.approx(dice)
        healthy = positive[~HALF[site == name]].mean()
        assert subgroup["metrics"]["healthy_fp"]["value"] == pytest.approx(healthy)


def test_alike_subgroups_have_a_gap_that_may_be_0() -> None:
    """Of three alike sites; an interval of one of three pairs is wider than of one alone."""
    site = [f"site {i // 2 % 3}" for i in range(60)]
    gap = metadata_of(predictions([{"site": s} for s in site], 0.6))["site"]["gaps"]["pixel_ap"]
    assert gap["pairs"] == 3 and gap["low"] < 0 < gap["value"] < gap["high"]


def test_numbers_are_binned_by_quantiles_of_patients() -> None:
    ages = np.random.default_rng(1).permutation(np.linspace(20, 79, 60).round(1))
    label = np.arange(120) % 2 == 1
    patients = np.repeat(np.arange(60), 2)  # a normal and an abnormal sample each
    tags = [{"age": f"{ages[p]}"} for p in patients]
    members = metadata_fields(tags, [f"p{p}" for p in patients], label)["age"]
    assert [int(m.sum()) for m in members.values()] == [40, 40, 40]
    assert [*members] == ["below 40", "40 to 60", "60 and above"]
    assert (np.sum([*members.values()], axis=0) == 1).all()


@given(
    st.lists(st.sampled_from(["", "1", "2", "3.5", "7", "8", "9", "11"]), min_size=6, max_size=40)
)
def test_no_sample_is_in_two_subgroups(values: list[str]) -> None:
    label = np.arange(len(values)) % 2 == 1
    tags = [{"n": value} if value else {} for value in values]
    for members in metadata_fields(tags, [str(i) for i in range(len(values))], label).values():
        assert np.sum([*members.values()], axis=0).max() == 1 and len(members) <= MAX_SUBGROUPS
        for selected in members.values():
            assert (label[selected]).any() and (~label[selected]).any()


def test_what_is_no_field_of_metadata() -> None:
    label = np.arange(40) % 2 == 1
    names = [f"p{i}" for i in range(40)]
    kinds = [{"lesion": "stroke" if abnormal else "none"} for abnormal in label]
    assert metadata_fields(kinds, names, label) == {}  # nobody healthy has a stroke
    assert metadata_fields([{"id": name} for name in names], names, label) == {}  # names samples
    assert metadata_fields([{"site": "A"}] * 40, names, label) == {}
    assert metadata_fields([{} for _ in names], names, label) == {}
    mixed = [{"age": "unknown" if i == 3 else str(i)} for i in range(40)]
    assert metadata_fields(mixed, names, label) == {}
    few = metadata_fields([{"tesla": "1.5" if i % 4 < 2 else "3"} for i in range(40)], names, label)
    assert [*few["tesla"]] == ["1.5", "3"]
