"""Evaluation and its protocol: what may depend on what, and figures against scikit-learn."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from adbench.benchmark.evaluation import in_memory_ground_truth
from adbench.benchmark.evaluation.evaluate import Predictions, evaluate
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.metrics.ranking import pixel_score_metrics
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.evaluation.protocol_values import ProtocolError
from adbench.benchmark.evaluation.thresholds import bisect_dice_threshold, threshold_exceeded_by

LEVELS = (100, 250, 500)
SIDE = 12


def predictions_of(
    name: str, count: int = 24, shape: tuple[int, ...] = (SIDE, SIDE), strength=1, **other: Any
) -> Any:
    """Every second sample is abnormal; lesions stand out by 0.5, 1, 1.5 at the three levels."""
    rng = np.random.default_rng(sum(map(ord, name)))
    label = np.arange(count) % 2 == 1 if name != "held_out" else np.zeros(count, bool)
    mask = np.zeros((count, *shape), bool)
    mask[(slice(None), *(slice(3, 6) for _ in shape))] = True
    mask[~label] = False
    roi = np.ones((count, *shape), bool)
    roi[:, 0] = False
    maps = rng.normal(size=(3, count, *shape)) + strength * np.stack([0.5 * mask, mask, 1.5 * mask])
    lesions = ["stroke" if i % 4 == 1 else "tumour" for i in range(count)]
    default = Predictions(
        keys=[f"{name}/{i}" for i in range(count)],
        groups=[f"{name}/{i // 2}" for i in range(count)],
        label=label,
        mask=mask,
        roi=roi,
        spacing=None,
        tags=[{"lesion": lesions[i]} if label[i] else {} for i in range(count)],
        score=rng.normal(size=(3, count)) + label * np.array([[0], [1], [2]]),
        map=maps.astype(np.float32),
    )
    return replace(default, **other)


CALIBRATION: Any
VAL: Any
TEST: Any
CALIBRATION, VAL, TEST = predictions_of("held_out"), predictions_of("val"), predictions_of("test")


def row(
    calibration=CALIBRATION, val=VAL, test=TEST, levels: Any = LEVELS, published=250, **protocol
):
    if calibration is CALIBRATION and val is VAL and test is TEST and levels is LEVELS:
        return usual(published, Protocol(**protocol))
    return evaluate(calibration, val, test, levels, published, Protocol(**protocol))[0]


@cache
def usual(published: int, protocol: Protocol) -> dict[str, Any]:
    return evaluate(CALIBRATION, VAL, TEST, LEVELS, published, protocol)[0]


def value(result: dict[str, Any], name: str) -> Any:
    return result["metrics"][name]["value"]


def test_a_record_holds_what_the_report_reads_and_nothing_that_json_cannot_say():
    result = row()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result) == [
        *("level", "threshold", "metrics", "at_published", "at_oracle", "sweep", "strata"),
        *("metadata", "lesions", "pixel_error", "reference", "calibration", "counts"),
    ]
    assert set(result["metrics"]) == {
        *("image_auroc", "image_ap", "image_f1max", "image_fpr95", "group_auroc"),
        *("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_aupro05", "pixel_dice"),
        *("pixel_dice_oracle", "pixel_iou", "healthy_fp"),
        *("volume_ap", "volume_dice", "volume_sensitivity", "volume_precision"),
        *("volume_dice_oracle", "pixel_iou_oracle"),
        *("healthy_volume_fp", "pixel_aupimo", "image_ppv95"),
        *("lesion_sensitivity", "lesion_contrast", "healthy_psnr", "healthy_ssim"),
        *("sample_pixel_auroc", "sample_pixel_ap", "sample_pixel_dice_otsu"),
    }
    assert set(result["at_published"]) == set(result["at_oracle"]) == set(result["metrics"])
    assert result["counts"] == {
        "test": 24,
        "test_abnormal": 12,
        "test_groups": 12,
        "val": 24,
        "calibration": 24,
    }


def test_figures_at_the_chosen_level_are_scikit_learns():
    result = row()
    assert result["level"] == {"chosen": 500, "rule": "val", "published": 250, "oracle": 500}
    mask, places = TEST.mask[TEST.roi], TEST.map[2][TEST.roi]
    assert value(result, "pixel_auroc") == pytest.approx(roc_auc_score(mask, places))
    assert value(result, "pixel_ap") == pytest.approx(average_precision_score(mask, places))
    paper = TEST.map[1][TEST.roi]
    assert result["at_published"]["pixel_ap"] == pytest.approx(average_precision_score(mask, paper))
    inside = TEST.map[2][:, 1:].reshape(24, -1)
    tops = np.sort(inside)[:, -3:].mean(1, dtype=float)  # 2 % of 132 places
    assert value(result, "image_auroc") == pytest.approx(roc_auc_score(TEST.label, tops))
    assert value(result, "image_ap") == pytest.approx(average_precision_score(TEST.label, tops))
    assert value(result, "group_auroc") is None  # every group has an abnormal sample
    apart = row(test=replace(TEST, groups=[f"{i % 12}" for i in range(24)]))
    pairs = tops.reshape(2, 12).max(0)
    label = np.arange(12) % 2 == 1
    assert value(apart, "group_auroc") == pytest.approx(roc_auc_score(label, pairs))


def test_the_sweep_shows_every_level_on_both_splits():
    result = row()["sweep"]
    assert list(result) == ["100", "250", "500"]
    assert set(result["100"]["val"]) == {"image_auroc", "pixel_ap"}
    mask = VAL.mask[VAL.roi]
    for i, level in enumerate(result):
        ap = average_precision_score(mask, VAL.map[i][VAL.roi])
        assert result[level]["val"]["pixel_ap"] == pytest.approx(ap)
    assert result["500"]["test"]["pixel_dice_oracle"] == value(row(), "pixel_dice_oracle")


def test_test_has_no_say_in_level_and_threshold():
    upside_down = replace(TEST, map=TEST.map[::-1])
    plain, other = row(), row(test=upside_down)
    assert other["level"]["chosen"] == 500 and other["level"]["oracle"] == 100
    assert other["threshold"] == plain["threshold"]
    assert value(other, "pixel_ap") < other["at_oracle"]["pixel_ap"]
    chosen = row(test=upside_down, level="oracle")
    assert chosen["level"] == {"chosen": 100, "rule": "oracle", "published": 250, "oracle": 100}


def test_five_percent_of_healthy_held_out_places_exceed_the_threshold():
    threshold = row()["threshold"]
    assert threshold["rule"] == "healthy@5%"
    places = CALIBRATION.map[2][CALIBRATION.roi]
    assert (places > threshold["value"]).sum() == places.size * 5 // 100
    result = TEST.map[2] > threshold["value"]
    healthy = result[~TEST.label][TEST.roi[~TEST.label]]
    assert value(row(), "healthy_fp") == healthy.mean()
    result, mask = result[TEST.roi], TEST.mask[TEST.roi]
    dice = 2 * (result & mask).sum() / (result.sum() + mask.sum())
    assert value(row(), "pixel_dice") == pytest.approx(dice)
    assert value(row(), "pixel_iou") == pytest.approx(dice / (2 - dice))


def test_ties_never_let_more_exceed_than_allowed():
    assert threshold_exceeded_by(5, np.arange(100.0)) == 94
    assert threshold_exceeded_by(5, np.r_[np.zeros(90), np.ones(10)]) == 1
    assert threshold_exceeded_by(1, np.zeros(3)) == 0


def test_the_other_threshold_rules():
    best = pixel_score_metrics(PixelScores.from_maps(VAL.map[2], VAL.mask, VAL.roi))["threshold"]
    assert row(threshold="val-dice")["threshold"] == {"rule": "val-dice", "value": best}
    places = PixelScores.from_maps(VAL.map[2], VAL.mask, VAL.roi)
    near = row(threshold="val-bisect10")["threshold"]
    assert near == {
        "rule": "val-bisect10",
        "value": bisect_dice_threshold(places),
    }
    assert row(threshold="fixed:1.5")["threshold"] == {"rule": "fixed:1.5", "value": 1.5}
    oracle = row(threshold="oracle")
    assert value(oracle, "pixel_dice") == value(oracle, "pixel_dice_oracle")
    assert value(row(), "pixel_dice") < value(row(), "pixel_dice_oracle")


def test_bisection_finds_what_the_authors_code_finds():
    """The first figures are of their code."""
    score = np.array([0.05, *np.arange(1, 10) / 10])
    truth = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1], bool)
    assert bisect_dice_threshold(PixelScores.from_maps(score[None], truth[None])) == 0.337939453125
    rng = np.random.default_rng(5)
    for _ in range(50):
        truth = rng.random(2000) < rng.uniform(0.02, 0.3)
        score = np.abs(rng.normal(size=2000) + rng.uniform(1, 3) * truth)
        precision, recall, _ = precision_recall_curve(truth, score)
        most = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        dice = f1_score(
            truth, score > bisect_dice_threshold(PixelScores.from_maps(score[None], truth[None]))
        )
        assert most - 0.01 < dice <= most + 1e-9


def test_without_abnormal_validation_samples_the_papers_level_is_used():
    normal = replace(VAL, label=np.zeros(24, bool), mask=np.zeros_like(VAL.mask))
    nothing = predictions_of("val", count=0)
    for val in (normal, nothing, replace(nothing, map=None, score=np.zeros((3, 0)), mask=None)):
        result = row(val=val)
        assert result["level"]["chosen"] == 250 and result["level"]["rule"] == "published"
        with pytest.raises(ProtocolError, match="level=published"):
            row(val=val, level="val")
        with pytest.raises(ProtocolError, match="healthy@5%"):
            row(val=val, threshold="val-dice")
    with pytest.raises(ProtocolError, match="needs calibration samples"):
        row(calibration=predictions_of("held_out", count=0))


def test_a_method_without_a_map_is_judged_by_its_score():
    splits = [replace(split, map=None) for split in (CALIBRATION, VAL, TEST)]
    result = row(*splits)
    assert value(result, "image_auroc") == roc_auc_score(TEST.label, TEST.score[2])
    pixel = {name: figure for name, figure in result["metrics"].items() if name[:5] == "pixel"}
    assert {figure["value"] for figure in pixel.values()} == {None}
    assert value(result, "healthy_fp") is None and result["threshold"]["value"] is None
    assert result["reference"]["prevalence"] == TEST.mask[TEST.roi].mean()
    with pytest.raises(ValueError, match="neither"):
        row(*[replace(split, score=None) for split in splits])


def test_data_without_masks_is_judged_by_its_labels():
    names = ("held_out", "val", "test")
    result = row(*(predictions_of(name, strength=3, mask=None, roi=None) for name in names))
    assert value(result, "pixel_ap") is None and value(result, "pixel_dice") is None
    assert value(result, "image_auroc") > 0.9 and result["level"]["rule"] == "val"
    assert result["reference"] == {"prevalence": None, "dice_floor": None, "image_prevalence": 0.5}
    assert 0.03 < value(result, "healthy_fp") < 0.08


def test_one_level_and_a_published_one_that_was_never_seen():
    one = [replace(s, map=s.map[:1], score=s.score[:1]) for s in (CALIBRATION, VAL, TEST)]
    assert row(*one, levels=[0], published=0)["level"]["chosen"] == 0
    with pytest.raises(ValueError, match=r"300.*\[100, 250, 500\]"):
        row(published=300)


@pytest.mark.parametrize("shape", [(40,), (8, 8, 8)])
def test_signals_and_volumes_are_judged_alike(shape):
    result = row(
        *(predictions_of(name, shape=shape, strength=2) for name in ("held_out", "val", "test"))
    )
    assert value(result, "pixel_ap") > result["reference"]["prevalence"]
    assert 0.5 < value(result, "pixel_aupro30") <= 1
    assert row(post=("median3", "components>=4"))["metrics"]["pixel_ap"]["value"] > 0


def test_what_lies_outside_the_region_of_interest_does_not_count():
    changed = [replace(s, map=np.where(s.roi, s.map, 99)) for s in (CALIBRATION, VAL, TEST)]
    assert row(*changed) == row()
    assert row(*changed, roi=False) != row(roi=False)


def test_neither_the_order_of_samples_nor_how_they_are_read_matters(tmp_path, monkeypatch):
    plain = row()
    monkeypatch.setattr(in_memory_ground_truth, "BLOCK_SIZE", 5 * SIDE * SIDE)
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["map"] = TEST.map
        assert row(test=replace(TEST, map=file["map"])) == plain
    order = np.random.default_rng(0).permutation(24)
    shuffled = replace(
        TEST,
        **{name: [getattr(TEST, name)[i] for i in order] for name in ("keys", "groups", "tags")},
        **{name: getattr(TEST, name)[order] for name in ("label", "mask", "roi")},
        score=TEST.score[:, order],
        map=TEST.map[:, order],
    )
    assert row(test=shuffled) == plain


def test_strata_are_abnormal_samples_of_a_kind_against_all_normal_ones():
    result = row()
    assert set(result["strata"]) == {"lesion=stroke", "lesion=tumour"}
    strokes = np.array([tag.get("lesion") == "stroke" for tag in TEST.tags])
    keep, stratum = strokes | ~TEST.label, result["strata"]["lesion=stroke"]
    roi = TEST.roi[keep]
    ap = average_precision_score(TEST.mask[keep][roi], TEST.map[2][keep][roi])
    assert stratum["n"] == 6 and stratum["pixel_ap"] == pytest.approx(ap)
    many = [{"patient": str(i)} for i in range(60)]
    assert row(test=predictions_of("test", count=60, tags=many))["strata"] == {}


def test_the_reference_is_what_calling_everything_abnormal_scores():
    result = row(threshold="fixed:-1e9")
    assert value(result, "pixel_dice") == pytest.approx(result["reference"]["dice_floor"])
    assert value(result, "healthy_fp") == 1
    assert result["reference"]["prevalence"] == TEST.mask[TEST.roi].mean()


def test_intervals_hold_their_figure_and_are_given_where_they_exist():
    result = row()["metrics"]
    with_bounds = {*result} - {"group_auroc", "healthy_psnr", "healthy_ssim"}
    with_bounds -= {"volume_dice_oracle", "pixel_iou_oracle", "image_ppv95"}
    with_bounds -= {"healthy_volume_fp"}  # too few patients without a lesion
    assert {name for name, figure in result.items() if figure["low"] is not None} == with_bounds
    for name in with_bounds:
        assert result[name]["low"] <= result[name]["value"] <= result[name]["high"]
    few = row(test=predictions_of("test", groups=["a"] * 12 + ["b"] * 12))["metrics"]
    assert all(figure["low"] is None for figure in few.values())


def test_components_change_what_is_found_and_no_rank():
    plain, clean = row(), row(post=("components>=4",))
    assert value(clean, "pixel_ap") == value(plain, "pixel_ap")
    assert clean["threshold"] == plain["threshold"]
    assert value(clean, "healthy_fp") < value(plain, "healthy_fp")
    assert value(clean, "pixel_dice") > value(plain, "pixel_dice")


def test_post_processing_on_arrays_by_hand():
    spike = np.zeros((2, 5, 5), np.float32)
    spike[0, 2, 2] = 1
    assert not Protocol(post=("median3",)).filter_maps(spike).any()
    roi = np.zeros((1, 7, 7), bool)
    roi[0, :4, 2:6] = True  # touches the border above, which is no edge
    eroded = Protocol(post=("erode3",)).erode_roi(roi)
    assert eroded.sum() == 6 and eroded[0, :3, 3:5].all()
    hole = np.ones((1, 2, 11, 11), bool)
    hole[0, 0, 5, 5] = False
    y, x = np.ogrid[-5:6, -5:6]
    crossed = Protocol(post=("cross3",)).erode_roi(hole)
    assert (crossed[0, 0] == (np.abs(y) + np.abs(x) > 3)).all() and crossed[0, 1].all()
    assert (Protocol(post=("cross3",)).erode_roi(hole[:, 0]) == crossed[:, 0]).all()
    result = np.zeros((2, 6), bool)
    result[0, :3] = result[1, 0] = result[1, 4:] = True
    selected = Protocol(post=("components>=2",)).remove_small_components(result)
    assert selected.astype(int).tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert result.sum() == 6


@pytest.mark.parametrize(
    ("reducer", "expected"), [("mean", 49.5), ("max", 99), ("top2%", 98.5), ("top10%", 94.5)]
)
def test_reducers(reducer, expected):
    values = np.random.default_rng(0).permutation(100).astype(np.float32)
    assert Protocol(reducer=reducer).sample_score(values) == expected
    assert Protocol(reducer=reducer).sample_score(values[:0]) == -np.inf


def test_the_methods_own_score_where_the_protocol_asks_for_it():
    auroc = roc_auc_score(TEST.label, TEST.score[2])
    assert value(row(reducer="method"), "image_auroc") == auroc
    assert value(row(), "image_auroc") != auroc


def test_a_protocol_is_known_by_what_it_says():
    plain = Protocol()
    assert Protocol.parse("") == Protocol.parse("healthy@5.0%") == plain
    assert Protocol.parse("threshold=healthy@5%, level=auto").id == plain.id
    text = "val-dice, level=published, post=median5+components>=8, reducer=top1%, roi=no"
    parsed = Protocol.parse(text)
    assert parsed.post == ("median5", "components>=8") and not parsed.roi
    assert Protocol.from_dict(json.loads(json.dumps(parsed.as_dict())) | {"id": "x"}) == parsed
    ids = {plain.id, parsed.id, Protocol(reducer="mean").id, Protocol(threshold="fixed:1").id}
    assert len(ids) == 4 and Protocol(threshold="fixed:1.0").id in ids
    assert "5 % of healthy" in plain.describe() and "\n" not in parsed.describe()
    assert "TEST" in Protocol(threshold="oracle").describe()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("helthy@5%", "Did you mean 'healthy@5%'"),
        ("healthy@0%", "between 0 and 100"),
        ("fixed:abc", "no number: 'abc'"),
        ("level=vall", "Did you mean 'val'"),
        ("levels=val", "Did you mean 'level'"),
        ("reducer=top0%", "between 0 and 100"),
        ("post=median4", "odd"),
        ("post=medain5", "Did you mean 'median5'"),
        ("post=erode3,roi=no", "roi=yes"),
        ("roi=maybe", "yes, no"),
        ("val-dice,oracle", "twice"),
        ("select=auroc", "image_auroc"),
    ],
)
def test_a_protocol_that_cannot_be_says_what_would_do(text, says):
    with pytest.raises(ProtocolError, match=says) as caught:
        Protocol.parse(text)
    assert "\n" not in str(caught.value)


def test_lesions_are_told_by_size_in_millimetres():
    result = row(threshold="fixed:1.5", test=replace(TEST, spacing=(2.0, 3.0)))
    lesions, at = result["lesions"], TEST.map[2] > 1.5
    hit = [(at[i] & TEST.mask[i]).sum() >= 4.5 for i in np.flatnonzero(TEST.label)]
    assert value(result, "lesion_sensitivity") == pytest.approx(np.mean(hit))
    assert lesions["n"] == 12 and lesions["unit"] == "mm²"
    (bin,) = (row for row in lesions["bins"] if row["n"])
    assert (bin["low"], bin["high"], bin["found"]) == (10, 100, sum(hit))  # 9 places are 54 mm²
    false = (at & TEST.roi)[~TEST.label].sum() / 12 * 6
    assert lesions["false_size"] == pytest.approx(false)
    rates = [point["sensitivity"] for point in lesions["froc"]]
    assert rates == sorted(rates) and 0 < rates[-1] <= 1
    assert row(test=replace(TEST, mask=None))["lesions"] is None
    assert value(row(test=replace(TEST, mask=None)), "lesion_contrast") is None


def test_the_map_stands_out_more_where_lesions_are_stronger():
    result = row(threshold="fixed:1")
    assert result["metrics"]["lesion_contrast"]["value"] > result["at_published"]["lesion_contrast"]
    assert -1 <= result["at_published"]["lesion_contrast"] <= 1


def test_reconstructions_of_normal_samples_are_averaged():
    psnr = np.where(TEST.label, np.nan, np.array([[20.0], [30.0], [25.0]]) + np.arange(24))
    result = row(test=replace(TEST, psnr=psnr, ssim=psnr / 100))
    expected = psnr[2, ~TEST.label].mean()
    assert value(result, "healthy_psnr") == pytest.approx(expected)
    assert value(result, "healthy_ssim") == pytest.approx(expected / 100)
    bound = result["metrics"]["healthy_psnr"]
    assert bound["low"] < expected < bound["high"]
    assert value(row(), "healthy_psnr") is None


def test_beyond_the_budget_figures_are_binned_and_say_how_far_off_they_are():
    splits = [
        predictions_of(name, shape=(64, 64), strength=2) for name in ("held_out", "val", "test")
    ]
    exact, binned = row(*splits), row(*splits, budget=1000)
    assert exact["pixel_error"] == 0 < binned["pixel_error"] < 1e-3
    for name in ("pixel_auroc", "pixel_ap", "pixel_aupro30", "pixel_dice_oracle"):
        off = value(binned, name) - value(exact, name)
        assert abs(off) <= binned["pixel_error"] + 1e-12
    assert binned["level"] == exact["level"]


def test_a_budget_nobody_changed_leaves_the_protocol_as_it_was():
    assert "budget" not in Protocol().as_dict()
    changed = Protocol.parse("budget=1e6")
    assert changed.budget == 10**6 and changed.id != Protocol().id
    assert Protocol.from_dict(changed.as_dict()) == changed
    assert "1000000" in changed.describe()
    for text in ("budget=0", "budget=many", "budget=0.5"):
        with pytest.raises(ProtocolError, match="budget"):
            Protocol.parse(text)
