"""Two methods on the same samples, against a bootstrap written out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.metrics import average_precision_score, roc_auc_score

from adbench.benchmark.evaluation.sample_results import (
    SampleResults,
    SampleResultsError,
    write_sample_results,
)
from adbench.benchmark.evaluation.statistics.bootstrap import Resamples
from adbench.benchmark.leaderboard import pairwise
from adbench.benchmark.leaderboard.comparison import compare, gate_fails
from adbench.benchmark.leaderboard.pairwise import PairError, compare_pair, sample_results_of
from records import record

COUNTS = ("pixels", "abnormal_pixels", "positive_pixels", "true_positive_pixels")
METRICS = ("image_auroc", "image_ap", "pixel_dice", "pixel_iou", "healthy_fp")


def samples(shift=1.0, seed=0, size=40, counted=True):
    """Of `size` samples in groups of 4, half of them abnormal and scored higher by `shift`."""
    rng = np.random.default_rng(seed)
    label = np.arange(size) % 2
    both = rng.integers(0, 20, size) * label
    built = {
        "key": [f"s{i:03d}" for i in range(size)],
        "group": [f"g{i // 4}" for i in range(size)],
        "label": label.tolist(),
        "score": (rng.normal(size=size) + shift * label).round(1).tolist(),
    }
    if counted:
        built |= {
            "pixels": [100] * size,
            "abnormal_pixels": (both + rng.integers(0, 9, size) * label).tolist(),
            "positive_pixels": (both + rng.integers(0, 9, size)).tolist(),
            "true_positive_pixels": both.tolist(),
        }
    return built


def rows(**options) -> SampleResults:
    return kept_in(samples(**options))


def kept_in(output) -> SampleResults:
    outcome = sample_results_of({"samples": output})
    assert outcome is not None
    return outcome


def test_records_of_the_same_samples_share_their_draws(monkeypatch):
    pairwise._draw_resamples.cache_clear()
    alone = rows()
    draws, draw = [], Resamples.from_groups
    monkeypatch.setattr(
        Resamples, "from_groups", lambda groups: draws.append(groups) or draw(groups)
    )
    pairwise._draw_resamples.cache_clear()
    first, second, other = rows(), rows(shift=2.0), rows(size=24)
    assert [len(groups) for groups in draws] == [len(first.keys), 24]
    for name, values in alone.replicates.items():
        assert np.array_equal(first.replicates[name], values)
    assert not np.array_equal(second.replicates["image_auroc"], first.replicates["image_auroc"])
    assert len(other.replicates["image_auroc"]) == len(first.replicates["image_auroc"])


def by_hand(output, metric, picked):
    """A metric of samples, those that are picked counting as often as they are."""
    score, label = np.array(output["score"])[picked], np.array(output["label"])[picked]
    if metric == "image_auroc":
        return roc_auc_score(label, score)
    if metric == "image_ap":
        return average_precision_score(label, score)
    places, true, outcome, both = (np.array(output[name])[picked] for name in COUNTS)
    if metric == "healthy_fp":
        return outcome[label == 0].sum() / places[label == 0].sum()
    if metric == "pixel_dice":
        return 2 * both.sum() / (outcome.sum() + true.sum())
    return both.sum() / (outcome.sum() + true.sum() - both.sum())


def effective(output) -> int:
    """Groups, weighted by their abnormal places."""
    true = np.array(output["abnormal_pixels"]).reshape(10, 4).sum(1)
    return round(true.sum() ** 2 / (true**2).sum())


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_is_that_of_a_bootstrap_written_out(metric):
    a, b = samples(2.0, seed=1), samples(0.5, seed=2)
    got = compare_pair([kept_in(a)], [kept_in(b)], metric)
    resamples = Resamples.from_groups(a["group"])
    drawn = []
    for times in resamples.counts[:100].astype(int):
        picked = np.repeat(np.arange(40), times[resamples.group_index])
        drawn.append(by_hand(a, metric, picked) - by_hand(b, metric, picked))
    mine = kept_in(a).replicates[metric][:100] - kept_in(b).replicates[metric][:100]
    assert np.abs(mine - drawn).max() < 1e-12
    every = np.arange(40)
    assert got.a == pytest.approx(by_hand(a, metric, every), abs=1e-12)
    assert got.value == pytest.approx(got.a - by_hand(b, metric, every), abs=1e-12)
    # all ten groups hold both kinds: Student's tails of nine degrees, widened by sqrt(10 / 9); of
    # Dice and IoU fewer, for groups with more abnormal places count for more
    rare = (
        min(effective(output) for output in (a, b)) if metric in ("pixel_dice", "pixel_iou") else 10
    )
    assert (rare < 10) == (metric in ("pixel_dice", "pixel_iou"))
    tail = norm.cdf(student.ppf(0.025, rare - 1) * np.sqrt(rare / (rare - 1)))
    all_drawn = kept_in(a).replicates[metric] - kept_in(b).replicates[metric]
    assert (got.low, got.high) == pytest.approx(np.quantile(all_drawn, (tail, 1 - tail)))
    assert (got.samples, got.groups) == (40, 10)


def test_rows_in_a_file_beside_the_records_come_first_and_have_every_metric(tmp_path):
    plain = kept_in(samples(1.0))
    values = {**plain.values, "pixel_ap": 0.25}
    draws = {**plain.replicates, "pixel_ap": np.linspace(0.2, 0.3, 2000)}
    whole = SampleResults(
        plain.keys, plain.groups, plain.label, plain.score, plain.counts, values, draws
    )
    (tmp_path / "samples").mkdir()
    metrics = {name: {"value": value} for name, value in values.items()}
    write_sample_results(tmp_path / "samples" / "a.h5", {"metrics": metrics}, whole)
    built = {"file": "a.json", "samples": samples(9.0)}
    outcome = sample_results_of(built, tmp_path)
    assert outcome is not None and outcome.values == values
    same = compare_pair([outcome], [outcome], "pixel_ap")
    assert (same.value, same.low, same.high) == (0, 0, 0) and same.verdict == "not distinguishable"
    (tmp_path / "samples" / "a.h5").write_bytes(b"torn")
    with pytest.raises(SampleResultsError, match=r"a\.h5 holds no results of samples"):
        sample_results_of(built, tmp_path)
    assert sample_results_of(built) is not None


@settings(max_examples=20)
@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 9))
def test_turned_about_a_difference_changes_its_sign_and_its_verdict(one, two, seed):
    a, b = rows(shift=one, seed=seed), rows(shift=two, seed=seed + 1)
    there, back = compare_pair([a], [b], "image_auroc"), compare_pair([b], [a], "image_auroc")
    assert there.value == -back.value and there.low is not None and there.high is not None
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-12)
    turned = {"better": "worse", "worse": "better"}
    assert there.verdict == turned.get(back.verdict, back.verdict) and there.p == back.p


@settings(max_examples=10)
@given(st.sampled_from([lambda v: 3 * v + 1, np.exp, np.arctan]), st.integers(0, 5))
def test_scores_have_an_order_and_no_scale(change, seed):
    plain, other = samples(1.0, seed=seed), rows(shift=0.3, seed=seed + 1)
    bent = plain | {"score": change(np.array(plain["score"])).tolist()}
    outcome = [compare_pair([kept_in(each)], [other], "image_ap") for each in (plain, bent)]
    assert outcome[0] == outcome[1]


def test_a_lower_rate_of_false_alarms_is_better():
    calm = samples(seed=1)
    loud = calm | {"positive_pixels": [n + 30 for n in calm["positive_pixels"]]}
    parts = [kept_in(calm)], [kept_in(loud)]
    outcome = compare_pair(*parts, "healthy_fp")
    assert outcome.value < 0 and outcome.verdict == "better"
    assert compare_pair(*parts, "pixel_dice").verdict == "better"


def test_a_margin_forgives_what_lies_within_it():
    parts = [rows(shift=0.0, seed=1)], [rows(shift=4.0, seed=2)]
    plain = compare_pair(*parts, "image_auroc")
    assert plain.verdict == "worse" and plain.high is not None
    wide = compare_pair(*parts, "image_auroc", margin=-plain.high - 0.01)
    assert wide.verdict == "worse"
    wider = compare_pair(*parts, "image_auroc", margin=-plain.high + 0.01)
    assert wider.verdict == "not distinguishable" and wider.low == plain.low


def test_seeds_are_averaged_and_widen_the_interval_where_they_differ():
    steady = [rows(shift=1.0, seed=1)] * 3
    moody = [rows(shift=s, seed=1) for s in (0.0, 1.0, 2.0)]
    other = [rows(shift=1.0, seed=9)]
    parts = steady[:1], steady, moody
    one, narrow, wide = (compare_pair(part, other, "image_auroc") for part in parts)
    assert (narrow.value, narrow.low, narrow.high) == pytest.approx((one.value, one.low, one.high))
    assert wide.a == pytest.approx(np.mean([r.values["image_auroc"] or 0 for r in moody]))
    assert width(wide) > width(narrow)


def width(outcome):
    return outcome.high - outcome.low


def test_few_groups_have_no_interval_and_no_verdict():
    few = samples(3.0, seed=1)
    few["group"] = ["a", "b"] * 20
    outcome = compare_pair([kept_in(few)], [kept_in(few)], "image_auroc")
    assert (outcome.low, outcome.p, outcome.verdict) == (None, None, "not distinguishable")


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "rows",
        {"key": ["a"]},
        {**samples(), "score": [1.0]},
        {**samples(), "score": ["high"] * 40},
        {**samples(), "score": [float("nan")] * 40},
        {**samples(), "positive_pixels": [1]},
    ],
)
def test_rows_that_do_not_fit_together_are_none(broken):
    assert sample_results_of({"samples": broken}) is None


def results(folder, name, *records):
    """A folder as `adbench run` leaves it."""
    (folder / name / "records").mkdir(parents=True)
    for k, built in enumerate(records):
        (folder / name / "records" / f"r{k}.json").write_text(json.dumps(built))
    return folder / name


def record_with_samples(label, shift, seed=0, **changes):
    return record(label, **changes) | {"samples": samples(shift, seed=seed)}


def test_two_methods_of_a_folder_are_set_against_each_other(tmp_path):
    out = results(
        tmp_path,
        "out",
        record_with_samples("A", 3.0),
        record_with_samples("B", 0.0, 1),
        record_with_samples("A", 0.0, dataset__name="x"),
    )
    (outcome,) = compare("a", "b", out)
    assert outcome.difference.metric == "image_auroc" and outcome.difference.verdict == "better"
    assert outcome.files == (("r0",), ("r1",)) and "A is better" in outcome.sentence()
    assert compare("b", "a", out, metric="pixel_dice")[0].difference.metric == "pixel_dice"
    assert compare("r0", "r1", out)[0].difference == outcome.difference
    assert (
        gate_fails([outcome], "worse") is False
        and gate_fails(compare("b", "a", out), "worse") is True
    )
    assert gate_fails([outcome], None) is False and gate_fails([outcome], "not-better") is False


def test_two_folders_are_set_against_each_other_method_by_method(tmp_path):
    old = results(tmp_path, "old", record_with_samples("A", 3.0), record_with_samples("B", 1.0, 1))
    new = results(
        tmp_path,
        "new",
        record_with_samples("A", 0.0, 2),
        record_with_samples("B", 1.0, 1),
        record_with_samples("C", 1.0),
    )
    outcome = compare(str(new), str(old), tmp_path)
    assert [(c.a.split()[0], c.difference.verdict) for c in outcome] == [
        ("a", "worse"),
        ("b", "not distinguishable"),
    ]
    assert (
        gate_fails(outcome, "worse")
        and gate_fails(outcome[1:], "not-better")
        and not gate_fails(outcome[1:], "worse")
    )


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ("a", "nobody", {}, "no result of 'nobody'"),
        ("a", "c", {}, "no leaderboard in common"),
        ("a", "b", {"dataset": "mars"}, "on mars"),
        ("a", "b", {"metric": "pixel_ap"}, "no pixel_ap of single samples is stored"),
        ("a", "b", {"margin": -1.0}, "at least 0"),
        ("a", "bare", {}, "of r3 no results of single samples are stored"),
        ("a", "two", {}, "2 settings"),
        ("a", "other", {}, "not evaluated on the same samples"),
        ("a", ".", {}, "no result of '.'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path, a, b, options, message):
    out = results(
        tmp_path,
        "out",
        *(
            record_with_samples("A", 1.0),
            record_with_samples("B", 1.0),
            record_with_samples("C", 1.0, dataset__name="x"),
            record("bare"),
        ),
        *(
            record_with_samples("two", 1.0),
            record_with_samples("two", 1.0, method__args={"width": 3}),
        ),
        record("other") | {"samples": samples(size=44)},
    )
    with pytest.raises(
        (PairError, SampleResultsError), match=message.replace(".", r"\.")
    ) as caught:
        compare(a, b, out, **options)
    assert "\n" not in str(caught.value)


def test_a_word_that_is_no_gate_is_told():
    with pytest.raises(PairError, match="worse or not-better"):
        gate_fails([], "better")
