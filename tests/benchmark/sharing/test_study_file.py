"""Study files and folders of results say what to run: the same keys as the command line, and one
line, with its number, on what is wrong."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import adbench
from adbench.benchmark.api.run import RunOptions
from adbench.benchmark.cli.main import app
from adbench.benchmark.leaderboard.records import record_seal
from adbench.benchmark.sharing.study_file import STUDY_TYPES, study_schema
from adbench.benchmark.store.artifact import write_metadata
from adbench.benchmark.store.artifact_store import Store, cache_key

STUDY = """\
methods:
  dae: {steps: 6}
  pca:
datasets:
  phantom: {shape: [16, 16], train: 8, held_out: 4, val: 4, test: 6}
seeds: [0, 1]
profile: check
baselines: false
protocol: {threshold: healthy@10%, post: [median3]}
"""
BOMB = "a0: &a0 [1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
"""Few letters, 9⁸ values."""

COMMAND = [
    "-m", "dae,pca", "--set", "dae.steps=6", "-d", "phantom", "--set", "phantom.shape=[16,16]",
    "--set", "phantom.train=8", "--set", "phantom.held_out=4", "--set", "phantom.val=4",
    "--set", "phantom.test=6", "--seeds", "0,1", "--profile", "check", "--no-baselines",
    "--threshold", "healthy@10%", "--post", "median3",
]  # fmt: skip


def adbench_(*argv: object) -> Result:
    return CliRunner().invoke(app, [*map(str, argv)])


def keys(*argv: object) -> dict[str, set[str]]:
    """The keys of all stages that `plan` shows, by experiment, and what state they are in."""
    result = adbench_("plan", *argv, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    return {row["experiment"]: {f"{s['kind']} {s['key']}" for s in row["stages"]} for row in rows}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, run once."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(STUDY)
    where = ["--store", folder / "store", "--out", folder / "out", "--executor", "inline"]
    result = adbench_("run", folder / "study.yaml", *where)
    assert result.exit_code == 0, result.output
    return folder


def test_study_command_line_and_like_have_the_same_keys(folder: Path) -> None:
    store = ["--store", folder / "store"]
    study = keys(folder / "study.yaml", *store)
    assert len(study) == 4 and all(len(stages) == 5 for stages in study.values())
    assert keys(*COMMAND, *store) == study
    assert keys("--like", folder / "out", *store) == study
    assert "was made with" not in adbench_("plan", "--like", folder / "out", *store).output
    assert {path.stem for path in (folder / "out/records").iterdir()} == study.keys()


def test_other_versions_and_other_code_are_noted(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.copytree(folder / "store", tmp_path / "store")
    for path in (tmp_path / "out/records").iterdir():
        record = json.loads(path.read_text())
        record["versions"]["torch"] = "1.0"
        path.write_text(json.dumps(record | {"seal": record_seal(record)}))
    for artifact in [*Store(tmp_path / "store").artifacts("checkpoint")]:
        inputs = {**artifact.key_inputs, "code": "another"}
        key = cache_key(inputs)
        new = Store(tmp_path / "store").folder("checkpoint", key)
        new.parent.mkdir(parents=True, exist_ok=True)
        artifact.path.parent.rename(new)
        write_metadata(new / artifact.path.name, inputs, artifact.metadata, 1.0)
        for path in (tmp_path / "out/records").iterdir():
            record = json.loads(path.read_text())
            if record["keys"]["checkpoint"] == artifact.key:
                record["keys"]["checkpoint"] = key
                path.write_text(json.dumps(record | {"seal": record_seal(record)}))
    result = adbench_("plan", "--like", tmp_path / "out", "--store", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert "was made with torch 1.0; here: " in result.output
    assert "the code of dae has changed since: it is trained again" in result.output


def test_what_was_brought_in_is_not_repeated_and_is_said(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    for path in (tmp_path / "out/records").glob("*.dae.*"):
        record = json.loads(path.read_text())
        record["external"] = {
            "source": "maps", "digest": "0", "maps": True, "scores": False, "splits": ["test"],
        }  # fmt: skip
        path.write_text(json.dumps(record | {"seal": record_seal(record)}))
    result = adbench_("plan", "--like", tmp_path / "out", "--store", folder / "store")
    assert result.exit_code == 0 and "dae was brought in: it is left out" in result.output
    assert "phantom.pca" in result.stdout and "phantom.dae" not in result.stdout


@pytest.mark.parametrize("levels", ["100", None])
def test_a_repeated_sweep_has_the_files_of_the_first(tmp_path: Path, levels: str | None) -> None:
    """Whichever levels were asked for: the published one, 250, is swept besides."""
    options: dict[str, Any] = {
        "settings": {"phantom": {"shape": [8, 8], "train": 4, "held_out": 4, "val": 2, "test": 2},
                     "anoddpm": {"noise": "gaussian"}},
        "profile": "check", "baselines": False, "progress": False, "store": tmp_path / "store",
    }  # fmt: skip
    first = adbench.run("anoddpm", "phantom", levels=levels, out=tmp_path / "a", **options)
    again = adbench.run(
        like=tmp_path / "a", out=tmp_path / "b", store=tmp_path / "store", progress=False
    )
    assert [p.name for p in again.paths()] == [p.name for p in first.paths()]
    assert again.records == first.records


def test_options_replace_what_a_study_and_a_folder_hold_and_it_is_said(folder: Path) -> None:
    store = ["--store", folder / "store"]
    result = adbench_("plan", folder / "study.yaml", "--seeds", "7", "--set", "dae.steps=4",
                      "-m", "dae", *store)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "study.yaml: seeds [0, 1] -> 7" in result.output
    assert "study.yaml: dae.steps 6 -> 4" in result.output
    assert "study.yaml: methods ['dae', 'pca'] -> dae" in result.output
    assert ".s7." in result.output and "pca" not in result.stdout
    like = ["--like", folder / "out", "-m", "pca", "--seeds", "7", *store]
    result = adbench_("plan", *like)
    assert "seeds is 7 in place of what its records have" in result.output
    assert len(keys(*like)) == 1, "two records, one seed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [pca]\nsedes: [0]\n", "line 2: unknown key 'sedes'. Did you mean 'seeds'?"),
        ("seeds: 0\nmethods: pca\nseeds: 1\n", "'seeds' is there twice (lines 1 and 3)"),
        ("methods: [pca]\n\nlimit: many\n", "line 3: limit is a whole number"),
        ("methods: [pcaa]\n", "line 1: unknown method 'pcaa'. Did you mean 'pca'?"),
        ("methods:\n  pca:\n  dae:\n    stepz: 3\n", "line 4: method 'dae' takes no 'stepz'"),
        ("methods:\n  dae:\n    steps: few\n", "line 3: method 'dae': steps is a whole number"),
        ("datasets:\n  fantom: {}\n", "line 2: unknown dataset 'fantom'. Did you mean"),
        ("profile: tyni\n", "line 1: unknown profile 'tyni'"),
        ("protocol:\n  post: [median3]\n  thresold: x\n", "line 3: unknown key 'thresold'"),
        ("protocol:\n  roi: 3\n", "line 2: roi is true or false, not 3"),
        ("protocol: healthy5\n", "line 1: unknown protocol threshold 'healthy5'"),
        ("levels: [0.5]\n", "line 1: levels is"),
        ("seeds:\n", "line 1: seeds has no value"),
        ("methods: [pca\n", "line 2: not YAML"),
        ("- pca\n", "holds no study"),
        ("methods: !!python/object/apply:os.system ['true']\n", "not YAML"),
        (BOMB, "more than 100000 values"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_number(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    result = adbench_("plan", path)
    assert result.exit_code == 2 and f"error: {path}" in result.output, result.output
    assert message in result.output and len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none.yaml"], "none.yaml cannot be read: No such file"),
        (["pddpm"], "'pddpm' belongs to no option and is no study file"),
        (["a.yaml", "b.yaml"], "a run takes one study file, not 2"),
        (["a.yaml", "--like", "out"], "not both"),
        (["--like", "none"], "no records in none"),
        (["--like", "{f}/out", "--profile", "tiny"], "--profile does not go with --like"),
        (["--like", "{f}/out", "-m", "vae"], "there is no method 'vae' among dae, pca"),
        (["--like", "{f}/out", "--set", "vae.steps=3"], "--set names 'vae'"),
    ],
)
def test_a_wrong_command_is_one_line(folder: Path, argv: list[str], message: str) -> None:
    result = adbench_("plan", *(word.format(f=folder) for word in argv))
    assert result.exit_code == 2 and message in result.output, result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_study_has_the_arguments_of_run(tmp_path: Path) -> None:
    assert set(STUDY_TYPES) == {*RunOptions.__annotations__, "methods", "datasets"} - {
        "study",
        "like",
    }
    (tmp_path / "s.yaml").write_text("data: ../data\nregistry: more.yaml\n")
    options = adbench.read_study(tmp_path / "s.yaml")
    assert Path(options["data"]).resolve() == tmp_path.parent / "data"
    assert options["registry"] == [str(tmp_path / "more.yaml")]


def test_the_environment_stands_below_a_study(tmp_path: Path, monkeypatch) -> None:
    text = STUDY.replace("  dae: {steps: 6}\n", "").replace("[0, 1]", "0")
    (tmp_path / "s.yaml").write_text(f"{text}store: mine\n")
    monkeypatch.setenv("ADBENCH_STORE", str(tmp_path / "other"))
    result = adbench_("run", tmp_path / "s.yaml", "--out", tmp_path / "out")
    assert result.exit_code == 0 and not (tmp_path / "other").exists(), result.output
    assert (tmp_path / "mine/checkpoint").is_dir()


def test_the_schema_of_the_package_is_that_of_the_code() -> None:
    text = (files("adbench.benchmark.sharing") / "study.schema.json").read_text()
    assert json.loads(text) == study_schema()


def test_the_schema_for_editors_knows_names_and_arguments() -> None:
    schema = json.loads(adbench_("schema", "study").stdout)
    methods = schema["properties"]["methods"]["anyOf"][2]
    assert methods["properties"]["pca"]["properties"]["components"]["minimum"] == 1
    assert schema["additionalProperties"] is False
    result = adbench_("schema", "stuyd")
    assert result.exit_code == 2 and "Did you mean 'study'?" in result.output
