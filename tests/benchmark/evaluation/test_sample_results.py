"""What is kept beside a record: written, read, and compared without a map."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from adbench.benchmark.evaluation.sample_results import (
    Rows,
    RowsError,
    board_standings,
    compared,
    read,
    read_record,
    write,
)
from adbench.benchmark.evaluation.statistics.bootstrap import Resamples, image_draws
from adbench.benchmark.evaluation.statistics.paired_tests import BEST, WORSE


def rows(effect: float, seed: int = 0) -> tuple[dict, Rows]:
    rng = np.random.default_rng(7)
    groups = [f"patient é{i // 2}" for i in range(80)]
    label = np.arange(80) % 4 < 2
    score = rng.normal(size=80) + 0.1 * np.random.default_rng(seed).normal(size=80) + effect * label
    draws = image_draws(score, label, Resamples.of(groups))
    record = {"metrics": {"image_auroc": {"value": 0.5 + effect / 10}, "pixel_ap": {"value": None}}}
    return record, Rows(
        keys=[f"k{i}" for i in range(80)],
        groups=groups,
        label=label,
        score=score,
        counts=np.arange(320).reshape(80, 4),
        values={name: found["value"] for name, found in record["metrics"].items()},
        draws={"image_auroc": draws["auroc"]},
    )


def test_what_is_written_is_read(tmp_path):
    record, made = rows(1)
    path = tmp_path / "judged.h5"
    write(path, record, made)
    assert read_record(path) == record
    found = read(path)
    assert found.keys == made.keys and found.groups == made.groups
    for name in ("label", "score", "counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    assert found.values == made.values
    np.testing.assert_array_equal(found.draws["image_auroc"], made.draws["image_auroc"])
    assert path.stat().st_size < 100_000
    again = tmp_path / "again.h5"
    write(again, record, made)
    assert again.read_bytes() == path.read_bytes()
    write(path, record, replace(made, counts=None, draws={}))
    assert read(path).counts is None and read(path).draws == {}


def test_a_file_that_holds_no_rows_is_told_of(tmp_path):
    path = tmp_path / "x.h5"
    for content in (b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(RowsError, match="judge the run again") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_samples_in_words_of_json():
    made = rows(1)[1]
    score = made.score.copy()
    score[3] = -np.inf
    told = replace(made, score=score).told()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert set(told) == {"key", "group", "label", "score", "places", "true", "found", "both"}
    assert told["score"][3] == min(told["score"]) and told["both"][1] == 7
    assert set(replace(made, counts=None).told()) == {"key", "group", "label", "score"}


def test_methods_are_compared_by_their_rows_alone():
    good, bad, alike = rows(3)[1], rows(0.2)[1], rows(3, seed=1)[1]
    found = compared([good], [bad], "image_auroc")
    assert found.value == pytest.approx(0.28) and found.p is not None and found.p < 0.01
    same = compared([good], [good], "image_auroc")
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    seeds = compared([good, alike], [bad], "image_auroc")
    assert seeds.value == pytest.approx(0.28) and seeds.low is not None and seeds.low > 0
    board = board_standings({"good": [good, alike], "bad": [bad], "also": [good]}, "image_auroc")
    assert [each.verdict for each in board.values()][:2] == [BEST, WORSE]
    assert board["also"].verdict != WORSE
    none = board_standings({"good": [good], "bad": [bad]}, "pixel_ap")
    assert {each.verdict for each in none.values()} == {WORSE}


def test_other_samples_are_not_compared():
    good = rows(3)[1]
    other = replace(good, keys=["new", *good.keys[1:]])
    with pytest.raises(RowsError, match="2 are in one alone, such as 'k0'"):
        compared([good], [other], "image_auroc")
    with pytest.raises(RowsError, match="their order"):
        compared([good], [replace(good, keys=good.keys[::-1])], "image_auroc")
    with pytest.raises(RowsError, match="labels"):
        compared([good], [replace(good, label=~good.label)], "image_auroc")
