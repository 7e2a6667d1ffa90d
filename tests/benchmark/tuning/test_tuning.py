"""Tuning: equal trials, the same ones when it goes on, and none of them sees the test split."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import adbench
from adbench.benchmark.cli.main import app
from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.store.artifact_store import Store
from adbench.benchmark.tuning import search as search_module
from adbench.benchmark.tuning import trial as trial_module
from adbench.benchmark.tuning.search import search
from adbench.benchmark.tuning.trial import TrialResult
from adbench.engine.runtime.search_space import Choice, Interval, SearchSpace
from adbench.engine.training.loss import NotFinite

pytestmark = pytest.mark.xdist_group("tuning")  # what all need is made once

SMALL = {"phantom": {"shape": [16, 16], "train": 16, "held_out": 8, "val": 8, "test": 8}}
OPTIONS: dict[str, Any] = {
    "profile": "check", "settings": SMALL, "baselines": False, "progress": False,
    "executor": "inline",
}  # fmt: skip
BUDGET = {"steps", "batch", "size", "width", "widths", "repeats", "sampling_steps", "res_blocks"}
"""Arguments that spend more: to search them would give a method more than the others."""


def tune(folder: Path, *methods: str, **options: Any) -> adbench.Results:
    where: dict[str, Any] = {"out": folder / "out", "store": folder / "store"}
    every: dict[str, Any] = {"trials": 5, **OPTIONS, **where, **options}
    return adbench.tune(methods, "phantom", **every)


def record_of(results: adbench.Results, method: str) -> Any:
    return next(r for r in results.records if r["method"]["name"] == method)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    """What every trial in a store gave, by its key."""
    artifacts = Store(folder / "store").artifacts("trial", verify=True)
    return {artifact.key: json.loads(artifact.path.read_text()) for artifact in artifacts}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    tune(folder, "pca", "template-z", "healthy-mean")
    return folder


def test_every_method_has_the_same_trials_and_the_best_on_validation_is_run(tuned: Path) -> None:
    results = adbench.load_results(tuned / "out")
    pca, healthy = record_of(results, "pca"), record_of(results, "healthy-mean")
    for name in ("pca", "template-z"):
        facts = record_of(results, name)["tuning"]
        assert facts["trials"] == 5 and facts["objective"] == "val" and not facts["failed"]
        assert facts["value"] >= facts["default"] and facts["metric"] == "pixel_ap"
    assert healthy["tuning"]["trials"] == 0 and healthy["tuning"]["space"] == {}
    facts = pca["tuning"]
    assert pca["method"]["args"]["components"] == facts["chosen"]["components"] != 64
    level = str(pca["level"]["chosen"])
    assert pca["sweep"][level]["val"]["pixel_ap"] == facts["value"], "as the run itself has it"
    values = [content["value"] for content in trials(tuned).values()]
    assert len(values) == 10 and facts["value"] in values


def test_no_trial_predicts_the_test_split(tuned: Path) -> None:
    """Of all trainings that the trials made, only those that were chosen have test maps."""
    predicted: dict[str, set[str]] = {}
    for artifact in Store(tuned / "store").artifacts("maps"):
        inputs = artifact.key_inputs
        key = json.dumps(inputs["train"], sort_keys=True)
        predicted.setdefault(key, set()).add(inputs["part"])
    with_test = [parts for parts in predicted.values() if "test" in parts]
    assert len(predicted) > 5 and len(with_test) == 3
    assert {"val"} in predicted.values()


def test_a_tuning_that_is_stopped_goes_on_with_the_same_trials(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, real = 0, search_module.Search.add

    def add(self: Any, values: Mapping[str, Any], result: TrialResult) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        real(self, values, result)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search_module.Search, "add", add)
        tune(tmp_path, "pca", "template-z", "healthy-mean")
    assert len(trials(tmp_path)) == 4 and not (tmp_path / "out/records").exists()
    tune(tmp_path, "pca", "template-z", "healthy-mean")
    assert trials(tmp_path).keys() == trials(tuned).keys()
    first, second = (adbench.load_results(f / "out").records for f in (tuned, tmp_path))
    for one, other in zip(first, second, strict=True):
        ignored = {"train_seconds"}
        assert {k: v for k, v in one["tuning"].items() if k not in ignored} == {
            k: v for k, v in other["tuning"].items() if k not in ignored
        }
        assert one["metrics"] == other["metrics"]


def test_the_board_says_what_was_spent_and_chosen(tuned: Path) -> None:
    (board,) = adbench.load_results(tuned / "out").leaderboards()
    text = "\n".join(board.notes)
    assert "Tuned by 5 trials each, the method as it is among them, on validation" in text
    assert re.search(r"PCA.*: components=\d+ \(0\.\d+ -> 0\.\d+\)", text), text
    assert "Not tuned, so with an advantage less: Healthy mean" in text


def test_a_later_run_keeps_what_the_record_says_of_tuning(tuned: Path) -> None:
    before = record_of(adbench.load_results(tuned / "out"), "pca")
    settings = SMALL | {"pca": before["tuning"]["chosen"]}
    options = OPTIONS | {"settings": settings, "out": tuned / "out", "store": tuned / "store"}
    adbench.run("pca", "phantom", **options)
    assert record_of(adbench.load_results(tuned / "out"), "pca") == before


def test_without_abnormal_validation_samples_synthetic_anomalies_are_the_judge(
    tmp_path: Path,
) -> None:
    results = tune(tmp_path, "template-z", trials=2, objective="pseudo", seeds=[3, 4])
    facts = [record["tuning"] for record in results.records]
    assert [f["objective"] for f in facts] == ["pseudo"] * 2 and facts[0] == facts[1]
    assert facts[0]["seed"] == 3, "trials have the first seed, the run at the end all of them"


def test_a_trial_whose_training_is_not_finite_has_failed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trial_module.fit_experiment

    def fit(resolved: Any, *more: Any) -> Any:
        if resolved.experiment.method_args["floor"] != 0.05:
            raise NotFinite("weight spread is not finite")
        return real(resolved, *more)

    monkeypatch.setattr(trial_module, "fit_experiment", fit)
    (record,) = tune(tmp_path, "template-z", trials=3).records
    assert record["tuning"]["failed"] == 2 and record["tuning"]["chosen"] == {}
    assert record["method"]["args"]["floor"] == 0.05 and record["status"] == "ok"


def test_what_is_set_is_not_searched(tmp_path: Path) -> None:
    settings = SMALL | {"dae": {"steps": 2, "lr": 1e-4, "weight_decay": 1e-5, "deviation": 0.2}}
    (record,) = tune(tmp_path, "dae", trials=2, settings=settings).records
    assert record["tuning"]["space"].keys() == {"grid"}
    assert record["method"]["args"]["lr"] == 1e-4


def test_a_search_finds_the_top_of_a_known_function() -> None:
    space = SearchSpace(x=Interval(-1.0, 1.0), n=Interval(1, 100, log=True), c=Choice("a", "b"))

    def run(values: Mapping[str, Any]) -> TrialResult:
        x, n, c = values.get("x", 1.0), values.get("n", 1), values.get("c", "a")
        if x < -0.8:
            return TrialResult(None, reason="refused")
        return TrialResult(-((x - 0.3) ** 2) - abs(n - 10) / 100 - (c == "a"))

    outcome = search(space, {"x": 1.0, "n": 1, "c": "a"}, 60, 7, run)
    assert outcome.trials == 60 and outcome.failed > 0 and outcome.value is not None
    assert outcome.value > -0.1 and outcome.chosen["c"] == "b"
    assert isinstance(outcome.chosen["n"], int) and 1 <= outcome.chosen["n"] <= 100
    again = search(space, {"x": 1.0, "n": 1, "c": "a"}, 60, 7, run)
    assert [r.value for r in again.results] == [r.value for r in outcome.results]


@pytest.mark.parametrize("name", Registry.read().methods)
def test_a_declared_space_holds_values_that_the_method_takes(name: str) -> None:
    entry = Registry.read().method(name)
    space = entry.load().search_space
    assert not space.keys() & BUDGET
    for argument, part in space.items():
        ends = part.values if isinstance(part, Choice) else (part.low, part.high)
        for value in ends:
            assert entry.arguments("paper", {argument: value})[argument] == value


def test_the_methods_that_are_to_have_a_space_do() -> None:
    names = ("anoddpm", "pddpm", "autoddpm", "ddad", "dae", "pca", "template-z", "intensity")
    methods = Registry.read().methods
    assert all(len(methods[name].load().search_space) > 0 for name in names)


def adbench_(*argv: str) -> Result:
    return CliRunner().invoke(app, ["tune", *argv])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pca", "--trials", "2", "--objective", "tset"], "--objective is auto, val, pseudo"),
        (["pca", "--trials", "2", "--level-rule", "oracle"], "looks at test"),
        (["pcaa", "--trials", "2"], "unknown method 'pcaa'. Did you mean 'pca'?"),
        (["pca", "--trials", "2", "-d", "phantm"], "Did you mean 'phantom'?"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(
    tmp_path: Path, argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = adbench_(*argv)
    assert result.exit_code == 2 and message in result.output, result.output
    assert len(result.output.strip().splitlines()) == 1
