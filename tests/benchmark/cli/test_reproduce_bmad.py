"""BMAD from its folders on disk to its table: made-up images, laid out as its authors do."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from trees_benchmarks import bmad, cohort

PLUGIN = Path(__file__).parents[2] / "plugin" / "brightness.py"


def findings(tmp_path: Path, paper: str, method: str, dataset: str, *settings: str) -> list[dict]:
    registry = tmp_path / "registry.yaml"
    entry = {"class": f"{PLUGIN}:Brightness", "replace": True}
    registry.write_text(yaml.safe_dump({"methods": {method: entry}}))
    out, common = str(tmp_path / "out"), ["--registry", str(registry)]
    argv = ["run", "-m", method, "-d", dataset, "--data", str(tmp_path / "data"), *common]
    argv += ["--protocol", f"{paper},adbench", "--profile", "paper", "--no-baselines", "--out", out]
    argv += ["--store", str(tmp_path / "store"), "--executor", "inline"]
    for text in settings:
        argv += ["--set", text]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["reproduce", paper, "--out", out, *common, "--json"])
    return [finding for finding in json.loads(result.output) if finding["value"] is not None]


def test_the_folders_of_bmad_run_to_its_table(tmp_path) -> None:
    bmad(tmp_path / "data", "Retina_RESC")
    compared = findings(tmp_path, "bmad", "patchcore", "bmad/resc", "bmad.size=16")
    assert [f["metric"] for f in compared] == ["image AUROC", "pixel AUROC", "PRO"]
    assert {f["dataset"] for f in compared} == {"bmad/resc"}
    assert [f["published"] for f in compared] == [0.9155, 0.9648, 0.8584]
    assert all(len(f["records"]) == 1 for f in compared)


def test_a_cohort_of_uad_imag_runs_to_its_table_by_its_name_alone(tmp_path) -> None:
    dataset = "uad-imag-wmh-t1"
    cohort(tmp_path / "data" / dataset, "T1w")
    (tmp_path / "data" / "something-else").mkdir()
    compared = findings(tmp_path, "uad-imag", "patchcore", dataset, f"{dataset}.size=16")
    assert {f["metric"]: f["published"] for f in compared} == {"best Dice": 0.074, "Dice": 0.049}
    assert {f["dataset"] for f in compared} == {dataset}
