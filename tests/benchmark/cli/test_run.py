"""From the command line to the board, with a method and a dataset from outside the package."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adbench.benchmark.cli.main import app
from adbench.benchmark.registry.registry import Registry

PLUGIN = str(Path(__file__).parents[2] / "plugin" / "registry.yaml")
BASELINES = [
    name
    for name, entry in Registry.read().methods.items()
    if entry.baseline and 2 in entry.load().ndims
]
SMALL = {"size": 16, "width": 8, "mults": [1, 2], "res_blocks": 1, "heads": 1, "attention": [8],
         "steps": 6, "batch": 2, "sampling_steps": 2, "repeats": 2}  # fmt: skip


def adbench(folder: Path, *more: str, verb: str = "run") -> Result:
    argv = [verb]
    if verb in ("run", "plan"):
        argv += ["--registry", PLUGIN, "-d", "bumps", "--store", str(folder / "store")]
    if verb in ("run", "report"):
        argv += ["--out", str(folder / "out")]
    return CliRunner().invoke(app, [*argv, *more])


def board(folder: Path) -> dict[str, bytes]:
    assert adbench(folder, verb="report").exit_code == 0
    return {
        name: (folder / "out" / name).read_bytes() for name in ("leaderboard.md", "leaderboard.csv")
    }


def records(folder: Path) -> dict[str, dict]:
    results = [json.loads(p.read_text()) for p in (folder / "out/records").glob("*.json")]
    return {record["method"]["name"]: record for record in results}


def diffusion(name: str = "anoddpm", **more: object) -> list[str]:
    sets = [f"{name}.{key}={value}" for key, value in (SMALL | more).items()]
    return ["-m", name, *[part for text in sets for part in ("--set", text)]]


def test_a_method_and_a_dataset_from_outside_reach_the_board(tmp_path: Path) -> None:
    built = adbench(tmp_path, "-m", "brightness")
    assert built.exit_code == 0, built.output
    results = records(tmp_path)
    assert results.keys() == {*BASELINES, "brightness"}, "the baselines come along"
    record = results["brightness"]
    assert record["status"] == "ok" and record["profile"] == "tiny"
    assert record["metrics"]["image_auroc"]["value"] > 0.9
    text = board(tmp_path)["leaderboard.md"].decode()
    assert "brightness" in text and "synthetic" in text
    pictures = {path.name for path in (tmp_path / "out/pictures").glob("*.png")}
    for kind in (r"[0-9a-f]{8}", "contact"):
        assert len([n for n in pictures if re.search(rf"\.{kind}\.png$", n)]) == len(BASELINES) + 1
    assert any("worst" in name for name in pictures), "those that are wrong somewhere"


def test_an_installed_package_may_bring_a_method(tmp_path: Path, monkeypatch) -> None:
    """An entry point, as an installed plugin has it."""
    folder = tmp_path / "site"
    (folder / "theirs-1.0.dist-info").mkdir(parents=True)
    (folder / "theirs-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: theirs\n")
    (folder / "theirs-1.0.dist-info/entry_points.txt").write_text(
        "[adbench.methods]\nglow = theirs_glow:Brightness\n"
    )
    source = Path(PLUGIN).with_name("brightness.py").read_text()
    (folder / "theirs_glow.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    built = adbench(tmp_path, "-m", "glow")
    assert built.exit_code == 0, built.output
    assert records(tmp_path)["glow"]["status"] == "ok"


def test_a_second_call_computes_nothing_and_changes_no_file(tmp_path: Path, monkeypatch) -> None:
    assert adbench(tmp_path, "-m", "brightness").exit_code == 0
    board(tmp_path)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*.*")}
    for stage in ("fit", "predict"):
        monkeypatch.setattr(
            f"adbench.benchmark.experiments.pipeline.{stage}", None
        )  # would raise if called
    again = adbench(tmp_path, "-m", "brightness")
    assert again.exit_code == 0 and "checkpoint  cached" in again.output
    after = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*.*")}
    assert {p: v for p, v in after.items() if p in before} == before


def test_what_fails_is_a_row_with_a_reason(tmp_path: Path) -> None:
    built = adbench(tmp_path, "-m", "brightness", "--set", "brightness.fail=fit")
    assert built.exit_code == 3
    record = records(tmp_path)["brightness"]
    assert record["status"] == "failed" and "this plugin always fails" in record["reason"]
    assert records(tmp_path)["healthy-mean"]["status"] == "ok", "the sweep goes on"
    assert "this plugin always fails" in board(tmp_path)["leaderboard.md"].decode()
    log = next((tmp_path / "out/logs").glob("*.log")).read_text()
    assert "Traceback" in log


def test_a_map_that_is_not_finite_stops_the_cell_and_is_not_stored(tmp_path: Path) -> None:
    built = adbench(tmp_path, "-m", "brightness", "--set", "brightness.fail=nan")
    assert built.exit_code == 3
    assert "not finite" in records(tmp_path)["brightness"]["reason"]
    stored = list((tmp_path / "store/maps").rglob("maps.h5"))
    assert len(stored) == 3 * len(BASELINES), "the baselines' only"


def test_what_cannot_be_is_skipped_with_the_reason(tmp_path: Path) -> None:
    built = adbench(tmp_path, "-m", "autoddpm", "--set", "bumps.shape=[24]")
    assert built.exit_code == 0, built.output
    record = records(tmp_path)["autoddpm"]
    assert record["status"] == "skipped" and record["reason"].startswith("takes samples of 2 axes")
    assert "takes samples of 2 axes" in board(tmp_path)["leaderboard.md"].decode()


def test_bad_data_is_exit_5_with_every_problem_listed(tmp_path: Path) -> None:
    built = adbench(tmp_path, "-m", "brightness", "--set", "bumps.broken=true")
    assert built.exit_code == 5
    assert "2 of 3 files are unusable" in built.output and "b: worse" in built.output


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-m", "anodppm"], "unknown method 'anodppm'. Did you mean 'anoddpm'?"),
        (["-m", "brightness", "--set", "brightness.pwer=2"], "'pwer'"),
        (["-m", "brightness", "--set", "brightness"], "NAME.ARGUMENT=VALUE"),
        (["-m", "brightness", "--set", "anoddpm.steps=2"], "not part of this run"),
        (["-m", "brightness", "--levels", "0:x"], "--levels takes numbers"),
        (["-m", "brightness", "--levels", "2000"], "1..1000"),
        (["-m", "brightness", "--profile", "huge"], "unknown profile 'huge'"),
        (["-m", "brightness", "--threshold", "healty@5%"], "healthy@5%"),
        (["-m", "brightness", "--device", "cuda"], "--device"),
        (["-m", "brightness", "--dtype", "int8"], "--dtype"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(tmp_path: Path, argv, message: str) -> None:
    built = adbench(tmp_path, *argv)
    assert built.exit_code == 2, built.output
    lines = [line for line in built.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert "Traceback" not in built.output


def test_a_report_of_nothing_says_what_to_run(tmp_path: Path) -> None:
    built = adbench(tmp_path, verb="report")
    assert built.exit_code == 2 and "adbench run" in built.output


def test_plan_tells_what_is_cached_and_why_not(tmp_path: Path) -> None:
    assert adbench(tmp_path, "-m", "brightness").exit_code == 0
    same = json.loads(adbench(tmp_path, "-m", "brightness", "--json", verb="plan").stdout)
    assert {stage["state"] for row in same for stage in row["stages"]} == {"cached"}
    argv = ["-m", "brightness", "--set", "brightness.power=2", "--json"]
    other = json.loads(adbench(tmp_path, *argv, verb="plan").stdout)
    stages = {stage["stage"]: stage for stage in other[-1]["stages"]}
    assert stages["train"]["why"] == ["args.power: 1.0 -> 2.0"]
    argv = ["-m", "brightness", "--reducer", "max", "--json"]
    planned = json.loads(adbench(tmp_path, *argv, verb="plan").stdout)
    states = {stage["stage"]: stage["state"] for stage in planned[-1]["stages"]}
    assert states["evaluate"] == "to do" and states["train"] == states["predict test"] == "cached"


def test_list_and_info_and_doctor_answer(tmp_path: Path) -> None:
    runner = CliRunner()
    names = json.loads(runner.invoke(app, ["list", "--json", "--registry", PLUGIN]).stdout)
    assert {"anoddpm", "brightness"} <= names["methods"].keys()
    facts = json.loads(runner.invoke(app, ["info", "pddpm", "--json"]).stdout)
    assert facts["arguments"]["patch"] == 48 and facts["published level"] == 500
    assert json.loads(runner.invoke(app, ["doctor", "--json"]).stdout)["torch"]
    assert runner.invoke(app, ["list", "metods"]).exit_code == 2


def test_a_partial_run_is_stamped_and_stands_on_no_full_board(tmp_path: Path) -> None:
    assert adbench(tmp_path, "-m", "brightness").exit_code == 0
    assert adbench(tmp_path, "-m", "brightness", "--limit", "6").exit_code == 0
    results = [json.loads(p.read_text()) for p in (tmp_path / "out/records").glob("*.json")]
    both = len(BASELINES) + 1
    assert sorted(r["partial"] or 0 for r in results) == [0] * both + [6] * both
    text = board(tmp_path)["leaderboard.md"].decode()
    assert text.count("## ") >= 2 or text.count("\n# ") >= 2


def test_a_sweep_of_two_levels_is_two_runs_of_one(tmp_path: Path) -> None:
    """Bit for bit, in the records' figures."""
    levels, few = ["50", "250"], [*diffusion(), "--no-baselines"]
    assert adbench(tmp_path, *few, "--levels", ",".join(levels)).exit_code == 0
    sweep = records(tmp_path)["anoddpm"]["sweep"]
    for level in levels:
        alone = tmp_path / level
        argv = [*few, "--levels", level, "--store", str(tmp_path / "store")]
        assert adbench(alone, *argv).exit_code == 0
        assert records(alone)["anoddpm"]["sweep"][level] == sweep[level]


LONG = [*diffusion(steps=15, sampling_steps=5), "--set", "bumps.size=40", "--levels", "250"]
LONG += ["--checkpoint-interval", "0", "--no-baselines"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert adbench(folder, *LONG).exit_code == 0
    return folder


@pytest.mark.xdist_group("undisturbed")
@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("checkpoint-*/*.safetensors", signal.SIGINT),
        ("maps-*/shard*.safetensors", signal.SIGKILL),
    ],
)
def test_a_killed_run_goes_on_to_the_same_board(
    tmp_path: Path, undisturbed: Path, moment: str, how: int
) -> None:
    """Killed in training or in looking; then the same command: the same board, bit for bit."""
    cut = tmp_path / "cut"
    command = [sys.executable, "-m", "adbench.benchmark.cli.main", "run", "--registry", PLUGIN,
               "-d", "bumps", "--store", f"{cut}/store", "--out", f"{cut}/out", *LONG]  # fmt: skip
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while process.poll() is None and not list((cut / "store/resume").glob(moment)):
        time.sleep(0.01)
    process.send_signal(how)
    code = process.wait()
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not list((cut / "out").glob("records/*")), "stopped before the end"
    remaining = [
        *(cut / "store/resume").rglob("*.safetensors"),
        *(cut / "store/maps").rglob("*.h5"),
    ]
    assert remaining, "what was done is there"
    assert adbench(cut, *LONG).exit_code == 0
    assert board(cut) == board(undisturbed)
    assert not (cut / "store/resume").exists() or not list((cut / "store/resume").rglob("*.json"))
