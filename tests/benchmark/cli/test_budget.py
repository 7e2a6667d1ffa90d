"""--budget: a run evaluated again from bins is another protocol, close to the exact one, and says
how close."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app

PLUGIN = str(Path(__file__).parents[2] / "plugin" / "registry.yaml")


def adbench(folder: Path, verb: str, *more: str) -> str:
    argv = [verb, "--registry", PLUGIN, "-d", "bumps", "--store", str(folder / "store")]
    built = CliRunner().invoke(app, [*argv, "-m", "brightness", "--no-baselines", *more])
    assert built.exit_code == 0, built.output
    return built.stdout


def test_another_budget_is_another_record_from_the_same_maps(tmp_path):
    inline = ("--out", str(tmp_path / "out"), "--executor", "inline")
    adbench(tmp_path, "run", *inline)
    adbench(tmp_path, "run", *inline, "--budget", "1000")
    results = [json.loads(path.read_text()) for path in (tmp_path / "out/records").glob("*.json")]
    exact, binned = sorted(results, key=lambda built: built["protocol"].get("budget", 0))
    assert binned["protocol"]["budget"] == 1000 and "budget" not in exact["protocol"]
    assert binned["protocol"]["id"] != exact["protocol"]["id"]
    assert binned["keys"]["maps/test"] == exact["keys"]["maps/test"]
    assert binned["keys"]["record"] != exact["keys"]["record"]
    assert exact["pixel_error"] == 0 < binned["pixel_error"] <= 1e-3
    for name in ("pixel_ap", "pixel_auroc", "pixel_aupro30"):
        one, two = (built["metrics"][name]["value"] for built in (exact, binned))
        assert two == pytest.approx(one, abs=binned["pixel_error"] + 1e-12)
    shown = CliRunner().invoke(app, ["report", "--out", str(tmp_path / "out")]).output
    assert "binned" in (tmp_path / "out/leaderboard.md").read_text()
    assert "±" in shown and "sorted up to 1000 pixels" in " ".join(shown.split())
    output = json.loads(adbench(tmp_path, "plan", "--budget", "1000", "--json"))
    states = {stage["kind"]: stage["state"] for stage in output[0]["stages"]}
    assert states["record"] == "cached"
