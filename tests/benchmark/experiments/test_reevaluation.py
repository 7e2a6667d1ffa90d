"""A finished run under another protocol: nothing is trained or looked at again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.evaluation.sample_results import (
    read_sample_results,
    significance_against_best,
)
from adbench.benchmark.experiments import pipeline as runner

PLUGIN = str(Path(__file__).parents[2] / "plugin" / "registry.yaml")


def adbench(folder: Path, *more: str) -> None:
    argv = ["run", "--registry", PLUGIN, "-d", "bumps", "--store", str(folder / "store")]
    argv += ["--out", str(folder / "out"), "-m", "brightness", "--no-baselines", *more]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output


def records(folder: Path) -> dict[str, Any]:
    """By level rule and threshold."""
    result = [json.loads(path.read_text()) for path in (folder / "out/records").glob("*.json")]
    return {f"{r['protocol']['level']} {r['protocol']['threshold']}": r for r in result}


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """What is trained or predicted from here on."""
    stages: list[str] = []
    predict, fit = runner.predict, runner.fit

    def predicting(*args, name, **more):
        stages.append(name)
        return predict(*args, name=name, **more)

    def fitting(*args):
        stages.append("fit")
        return fit(*args)

    monkeypatch.setattr(runner, "predict", predicting)
    monkeypatch.setattr(runner, "fit", fitting)
    return stages


def test_another_protocol_needs_no_network(tmp_path, computed):
    adbench(tmp_path)
    assert computed == ["fit", "held_out", "val", "test"]
    computed.clear()
    adbench(tmp_path, "--threshold", "val-dice")
    adbench(tmp_path, "--threshold", "oracle", "--reducer", "max", "--post", "median3")
    assert computed == []
    result = records(tmp_path)
    assert len(result) == 3
    assert len({json.dumps(r["keys"]["maps/test"]) for r in result.values()}) == 1
    assert len({r["threshold"]["value"] for r in result.values()}) == 3
    adbench(tmp_path, "--level-rule", "pseudo")
    assert computed == ["pseudo"], "only synthetic anomalies are new"
    pseudo = records(tmp_path)["pseudo healthy@5%"]
    assert pseudo["level"]["rule"] == "pseudo" and "maps/pseudo" in pseudo["keys"]
    plain = result["auto healthy@5%"]
    assert pseudo["dataset"]["fingerprint"] == plain["dataset"]["fingerprint"]
    assert pseudo["protocol"]["id"] != plain["protocol"]["id"]


def test_samples_and_draws_lie_beside_the_record_and_are_made_again_from_the_store(
    tmp_path, computed
):
    adbench(tmp_path)
    (path,) = (tmp_path / "out/samples").glob("*.h5")
    (record,) = records(tmp_path).values()
    rows = read_sample_results(path)
    assert record["samples"] == rows.to_json()
    assert len(rows.keys) == record["counts"]["test"]
    assert rows.values == {name: result["value"] for name, result in record["metrics"].items()}
    for name, result in record["metrics"].items():
        if result["low"] is not None:
            draws = rows.replicates[name]
            assert len(draws) == 2000
            assert np.nanmin(draws) <= result["low"] <= result["high"] <= np.nanmax(draws), name
    assert significance_against_best({"a": [rows], "b": [rows]}, "pixel_ap")["b"].difference.p == 1
    whole = path.read_bytes()
    path.unlink()
    computed.clear()
    adbench(tmp_path)
    assert computed == [] and path.read_bytes() == whole


def test_several_protocols_evaluate_maps_that_are_predicted_once(tmp_path, computed):
    adbench(tmp_path, "--protocol", "bmad,adbench,reducer=mean")
    assert computed == ["fit", "held_out", "val", "test"]
    computed.clear()
    more = ["run", "--registry", PLUGIN, "--like", str(tmp_path / "out"), "--protocol"]
    more += ["mood,mvtec", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, more)
    assert result.exit_code == 0 and computed == [], result.output
    paths = (tmp_path / "out/records").glob("*.json")
    names = {json.loads(path.read_text())["protocol"]["name"] for path in paths}
    assert names == {"bmad", None, "mood", "mvtec"}


def test_a_mistyped_protocol_is_one_line(tmp_path):
    argv = ["run", "-d", "phantom", "--out", str(tmp_path / "out"), "--protocol", "pdpm"]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 2 and result.output.startswith("error: ")
    assert "pddpm" in result.output and len(result.output.splitlines()) == 1
