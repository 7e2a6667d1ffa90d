"""The benchmark of metrics: references are correct, and the page says what was scaled."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from adbench.benchmark.cli import speed as cli_speed
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.metrics.ranking import pixel_score_metrics
from adbench.benchmark.speed import inference
from adbench.benchmark.speed import metrics as metrics_speed
from adbench.benchmark.speed.metrics import (
    adeval_metrics,
    aupro_by_loop,
    measure_metrics,
    sklearn_metrics,
    synthetic_maps,
)
from adbench.benchmark.speed.report import file_name, format_page

MACHINE = {
    "device": "A Machine (R)", "kind": "cpu", "threads": 1, "torch": "2", "dtype": "float32",
    "compile": False, "batch": 32, "peak_gflops": 50.0, "peak_of": {},
}  # fmt: skip


def test_the_stack_is_the_same_every_time_and_has_normal_maps_too():
    score, mask = synthetic_maps(7, 32)
    again, _ = synthetic_maps(7, 32)
    assert np.array_equal(score, again) and score.dtype == np.float32
    assert mask.any((1, 2)).tolist() == [False, True, True] * 2 + [False]
    assert score[mask].mean() > score[~mask].mean() + 0.4


def test_the_loop_is_aupro_by_hand():
    score = np.array([[[9.0, 1.0, 8.0, 0.0, 3.0, 2.0, 5.0]]])
    mask = np.array([[[1, 0, 1, 0, 0, 0, 0]]], bool)
    # two regions of one pixel each, both above the five normal ones: the whole area
    assert aupro_by_loop(score, mask) == pytest.approx(1)
    score[0, 0, 2] = 4.0  # below one of five: nothing of it up to 0.2, and 0.1 of 0.3 after
    assert aupro_by_loop(score, mask) == pytest.approx(0.5 + 0.5 * (0.3 - 0.2) / 0.3)
    score[0, 0, 2] = 5.0  # a tie with it: the curve rises in a straight line up to 0.2
    assert aupro_by_loop(score, mask) == pytest.approx(0.5 + 0.5 * (0.1 + 0.1) / 0.3)
    assert sklearn_metrics(score, mask)["auroc"] == pytest.approx((5 + 4.5) / 10)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # adeval's own
def test_adeval_agrees_to_the_width_of_its_bins():
    score, mask = synthetic_maps(12, 96)
    theirs, ours = (
        adeval_metrics(score, mask),
        pixel_score_metrics(PixelScores.from_maps(score, mask)),
    )
    assert theirs is not None
    assert theirs == pytest.approx({name: ours[name] for name in theirs}, abs=2e-3)


def test_without_adeval_the_rest_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "adeval", None)
    measurement: dict[str, Any] = measure_metrics(3, side=24, rounds=1, machine=MACHINE)
    assert measurement["of_adeval"] is None and measurement["ratio"]["all"]
    assert format_page([measurement]).count("| - |") == 2 and "adeval" in format_page([measurement])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("maps", [3, 9])
def test_every_figure_follows_from_what_was_timed(monkeypatch, maps):
    monkeypatch.setattr(metrics_speed, "REFERENCE_MAPS", 3)
    measurement: dict[str, Any] = measure_metrics(maps, side=24, rounds=2, machine=MACHINE)
    assert (
        measurement["largest_difference"] < 1e-9
        and measurement["few"] == 3
        and measurement["maps"] == maps
    )
    references = zip(
        measurement["sklearn_seconds"]["all"], measurement["loop_seconds"]["all"], strict=True
    )
    ratios = [sum(s) / t for s, t in zip(references, measurement["seconds"]["all"], strict=True)]
    assert measurement["ratio"]["all"] == pytest.approx(ratios) and len(ratios) == 2
    seconds = zip(measurement["seconds"]["all"], measurement["adeval_seconds"]["all"], strict=True)
    assert measurement["of_adeval"]["all"] == pytest.approx(
        [ours / theirs for ours, theirs in seconds]
    )
    text = format_page([measurement])
    assert "### Metrics" in text and f"| {maps} of 24 x 24 |" in text
    assert (", 3 maps times 3 |" in text) == (maps == 9)
    assert file_name(measurement) != file_name(measurement | {"maps": 4}) and file_name(
        measurement
    ) == file_name(measurement | {"few": 2})


def test_the_command_measures_metrics_and_builds_no_method(tmp_path: Path, monkeypatch):
    app = typer.Typer()
    app.command()(cli_speed.speed)
    calls = []

    def small(maps: int, **more: Any) -> dict[str, Any]:
        calls.append(maps)
        return measure_metrics(maps, side=16, **more)

    monkeypatch.setattr(inference, "describe_machine", lambda context: MACHINE)
    monkeypatch.setattr(metrics_speed, "measure_metrics", small)
    argv = ["--metrics", "4", "--rounds", "1", "--out", str(tmp_path), "--json", "-"]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    (measurement,) = json.loads(result.stdout)
    assert measurement["what"] == "metrics" and calls == [4]
    assert "### Metrics" in (tmp_path / "speed.md").read_text()
