"""Training on a share of the patients, and on normal samples among which abnormal ones are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.experiments.example_experiments import example_experiments
from adbench.benchmark.experiments.resolve import resolve
from adbench.benchmark.experiments.splits import Splits
from adbench.benchmark.experiments.training_samples import TrainingSamples
from adbench.benchmark.registry.registry import Registry, RegistryError
from adbench.datasets.base import DataError
from adbench.datasets.phantom import Phantom


def keys(**options) -> list[str]:
    split = TrainingSamples(**options).choose(Phantom(shape=(8,), train=60, abnormal=8))
    return [split[i].key for i in range(len(split))]


def test_a_smaller_share_is_a_part_of_a_larger_one():
    ten, thirty, whole = (keys(fraction=f) for f in (10, 30, 100))
    assert len(ten) == 6 and len(thirty) == 18 and len(whole) == 60
    assert {*ten} < {*thirty} < {*whole} and thirty == [key for key in whole if key in thirty]
    assert keys(fraction=10, seed=1) != ten


def test_abnormal_samples_are_the_share_asked_for_and_pass_for_normal():
    dataset = Phantom(shape=(8,), train=60, abnormal=8)
    split = TrainingSamples(contamination=5).choose(dataset)
    samples = [split[i] for i in range(len(split))]
    normal = {sample.key for sample in samples} & {*keys()}
    assert len(normal) == 60 and len(samples) == 63  # 3 of 63 are 4.8 %
    assert not any(sample.label for sample in samples)
    assert all(sample.mask is None for sample in samples[60:])
    few = TrainingSamples(contamination=1).choose(dataset)
    assert few[60].key in {sample.key for sample in samples} and len(few) == 61
    tested = {s.key for part in ("val", "test") for s in dataset.get_split(part)}
    assert not tested & {sample.key for sample in samples}


def test_what_cannot_be_is_refused_with_the_numbers():
    dataset = Phantom(shape=(8,), train=60, abnormal=8)
    with pytest.raises(DataError, match="are 15, and the dataset has 8"):
        TrainingSamples(contamination=20).choose(dataset)
    with pytest.raises(DataError, match="trained with labels"):
        TrainingSamples(contamination=1).choose(dataset, labelled=True)


def test_another_choice_is_another_digest_and_all_samples_keep_theirs():
    dataset = Phantom(shape=(8,), train=60, abnormal=8)
    plain = Splits(dataset).digest("train")
    chosen = [TrainingSamples(30), TrainingSamples(30, seed=1), TrainingSamples(100, 1)]
    digests = {Splits(dataset, training=each).digest("train") for each in chosen}
    assert len(digests | {plain}) == 4
    assert Splits(dataset, training=TrainingSamples(seed=3)).digest("train") == plain
    assert Splits(dataset, training=chosen[0]).digest("test") == Splits(dataset).digest("test")


def test_a_run_has_an_entry_for_each_share_and_contamination(tmp_path: Path):
    argv = ["run", "-m", "template-z", "-d", "phantom", "--profile", "check", "--no-baselines"]
    argv += ["--out", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    argv += ["--set", "phantom.train=40", "--set", "phantom.abnormal=20"]
    argv += ["--executor", "inline", "--fraction", "50,100", "--contaminate", "0,5%"]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    records = [json.loads(p.read_text()) for p in (tmp_path / "out/records").glob("*.json")]
    training = {(r["training"]["fraction"], r["training"]["contamination"]) for r in records}
    assert training == {(50, 0), (50, 5), (100, 0), (100, 5)}
    assert len({r["keys"]["checkpoint"] for r in records}) == 4
    result = CliRunner().invoke(app, ["report", "--out", str(tmp_path / "out")])
    assert "50 % of training" in (tmp_path / "out/leaderboard.md").read_text()
    assert "by share of the training patients: " in (tmp_path / "out/leaderboard.md").read_text()
    for wrong in ("--fraction=0", "--contaminate=100", "--fraction=ten"):
        assert CliRunner().invoke(app, [*argv, wrong]).exit_code == 2


@pytest.mark.parametrize(("split", "purpose"), [("train", "train on"), ("test", "evaluate")])
def test_data_without_samples_are_refused_before_a_training(split: str, purpose: str) -> None:
    (experiment,) = example_experiments("dae")
    with pytest.raises(DataError, match=f"'phantom' has no samples to {purpose}"):
        resolve(experiment, Phantom(shape=(8, 8), **{split: 0}), "float32")


def test_more_samples_than_names_fit_into_memory_are_refused() -> None:
    entry = Registry.read().dataset("phantom")
    assert entry.arguments("check", {"train": 1_000_000})["train"] == 1_000_000
    with pytest.raises(RegistryError, match="train is a whole number from 0 to 1000000"):
        entry.arguments("check", {"train": 10**11})
