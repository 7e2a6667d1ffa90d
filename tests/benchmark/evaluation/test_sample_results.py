"""What is kept beside a record: written, read, and compared without a map."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from adbench.benchmark.evaluation.sample_results import (
    SampleResults,
    SampleResultsError,
    compare,
    read_evaluation,
    read_sample_results,
    significance_against_best,
    write_sample_results,
)
from adbench.benchmark.evaluation.statistics.bootstrap import Resamples, bootstrap_image_metrics
from adbench.benchmark.evaluation.statistics.paired_tests import BEST, WORSE

COUNTS = ("pixels", "abnormal_pixels", "positive_pixels", "true_positive_pixels")


def rows(effect: float, seed: int = 0) -> tuple[dict, SampleResults]:
    rng = np.random.default_rng(7)
    groups = [f"patient é{i // 2}" for i in range(80)]
    label = np.arange(80) % 4 < 2
    score = rng.normal(size=80) + 0.1 * np.random.default_rng(seed).normal(size=80) + effect * label
    draws = bootstrap_image_metrics(score, label, Resamples.from_groups(groups))
    record = {"metrics": {"image_auroc": {"value": 0.5 + effect / 10}, "pixel_ap": {"value": None}}}
    return record, SampleResults(
        keys=[f"k{i}" for i in range(80)],
        groups=groups,
        label=label,
        score=score,
        counts=np.arange(320).reshape(80, 4),
        values={name: result["value"] for name, result in record["metrics"].items()},
        replicates={"image_auroc": draws["auroc"]},
    )


def test_what_is_written_is_read(tmp_path):
    record, output = rows(1)
    path = tmp_path / "samples.h5"
    write_sample_results(path, record, output)
    assert read_evaluation(path) == record
    result = read_sample_results(path)
    assert result.keys == output.keys and result.groups == output.groups
    for name in ("label", "score", "counts"):
        np.testing.assert_array_equal(getattr(result, name), getattr(output, name))
    assert result.values == output.values
    np.testing.assert_array_equal(
        result.replicates["image_auroc"], output.replicates["image_auroc"]
    )
    assert path.stat().st_size < 100_000
    again = tmp_path / "again.h5"
    write_sample_results(again, record, output)
    assert again.read_bytes() == path.read_bytes()
    write_sample_results(path, record, replace(output, counts=None, replicates={}))
    assert read_sample_results(path).counts is None and read_sample_results(path).replicates == {}


def test_a_file_that_holds_no_rows_is_told_of(tmp_path):
    path = tmp_path / "x.h5"
    for content in (b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(SampleResultsError, match="evaluate the run again") as caught:
            read_sample_results(path)
        assert "\n" not in str(caught.value)


def test_samples_in_words_of_json():
    result = rows(1)[1]
    score = result.score.copy()
    score[3] = -np.inf
    values = replace(result, score=score).to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values) == {"key", "group", "label", "score", *COUNTS}
    assert list(values)[4:] == list(COUNTS)
    assert values["score"][3] == min(values["score"]) and values["true_positive_pixels"][1] == 7
    assert set(replace(result, counts=None).to_json()) == {"key", "group", "label", "score"}


def test_methods_are_compared_by_their_rows_alone():
    good, bad, alike = rows(3)[1], rows(0.2)[1], rows(3, seed=1)[1]
    result = compare([good], [bad], "image_auroc")
    assert result.value == pytest.approx(0.28) and result.p is not None and result.p < 0.01
    same = compare([good], [good], "image_auroc")
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    seeds = compare([good, alike], [bad], "image_auroc")
    assert seeds.value == pytest.approx(0.28) and seeds.low is not None and seeds.low > 0
    board = significance_against_best(
        {"good": [good, alike], "bad": [bad], "also": [good]}, "image_auroc"
    )
    assert [each.verdict for each in board.values()][:2] == [BEST, WORSE]
    assert board["also"].verdict != WORSE
    none = significance_against_best({"good": [good], "bad": [bad]}, "pixel_ap")
    assert {each.verdict for each in none.values()} == {WORSE}


def test_other_samples_are_not_compared():
    good = rows(3)[1]
    other = replace(good, keys=["new", *good.keys[1:]])
    with pytest.raises(SampleResultsError, match="2 are in one alone, such as 'k0'"):
        compare([good], [other], "image_auroc")
    with pytest.raises(SampleResultsError, match="their order"):
        compare([good], [replace(good, keys=good.keys[::-1])], "image_auroc")
    with pytest.raises(SampleResultsError, match="labels"):
        compare([good], [replace(good, label=~good.label)], "image_auroc")
