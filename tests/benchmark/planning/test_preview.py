"""What plan says of time, disk and memory: from similar earlier work, or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from adbench.benchmark.experiments.matrix import Experiment, expand_matrix
from adbench.benchmark.experiments.resolve import resolve
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.experiments.splits import Splits
from adbench.benchmark.planning import probe
from adbench.benchmark.planning.history import CostEstimate, CostHistory
from adbench.benchmark.planning.preview import StagePreview, preview_run
from adbench.benchmark.planning.text import format_preview, format_totals, total_memory_mb
from adbench.benchmark.registry.code_fingerprint import loaded_code_digest
from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.scheduling.console import ConsoleReporter
from adbench.benchmark.store.artifact import quick_check
from adbench.benchmark.store.artifact_store import Store, cache_key
from adbench.benchmark.store.atomic_files import free_bytes
from adbench.benchmark.store.index import StoreIndex
from adbench.datasets.base import Sample
from adbench.engine.profiling.cost import device_name
from adbench.engine.runtime.context import TrainingContext
from stored import maps_inputs, training_inputs

HERE = {"device": "a machine", "threads": 2}
TRAINED = {"train_seconds": 50.0, "train_samples": 400, "peak_memory_mb": 900.0, **HERE}
PREDICTED = {"seconds": 0.5, "samples": 20, "levels": 4, "peak_memory_mb": 700.0}


def put(
    store: Store,
    kind: str,
    key_inputs: Mapping[str, Any],
    metadata: Mapping[str, Any],
    size: int = 80,
) -> None:
    def create(path: Path) -> Mapping[str, Any]:
        path.write_bytes(b"." * size)
        return metadata

    store.get_or_create(kind, key_inputs, create, name="x")


def history(store: Store) -> CostHistory:
    return CostHistory(StoreIndex(store), "a machine", 2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A training of 1000 steps in 50 s, and a prediction of 20 samples at 4 levels, 0.5 s each."""
    store = Store(tmp_path / "store")
    put(store, "checkpoint", training_inputs(), TRAINED)
    put(store, "maps", maps_inputs(training_inputs()), PREDICTED)
    return store


def test_a_training_takes_as_long_as_its_steps_say(store: Store) -> None:
    for seed, steps, seconds in ((1, 1000, 50), (1, 4000, 200), (0, 10, 0.5)):
        estimate = history(store).estimate_training(training_inputs(seed=seed, steps=steps), 77)
        assert estimate.seconds == pytest.approx(seconds)
        assert (estimate.bytes, estimate.memory_mb) == (80, 900.0)
        assert estimate.source == "1 earlier training"
    put(store, "checkpoint", training_inputs(seed=5), TRAINED | {"train_seconds": 54.0})
    put(
        store, "checkpoint", training_inputs(seed=6, steps=2000), TRAINED | {"train_seconds": 140.0}
    )
    estimate = history(store).estimate_training(training_inputs(seed=7), 77)
    assert estimate.seconds == 54 and estimate.source == "3 earlier trainings", "the middle one"


def test_what_has_no_steps_takes_as_long_as_there_are_samples(tmp_path: Path) -> None:
    store, plain = Store(tmp_path), training_inputs("Mean")
    del plain["args"]["steps"]
    put(store, "checkpoint", plain, TRAINED)
    assert history(store).estimate_training(plain | {"seed": 3}, 800).seconds == pytest.approx(100)


@pytest.mark.parametrize(
    "other",
    [
        training_inputs("THOR"),
        training_inputs(lr=1.0),
        training_inputs() | {"numerics": "bfloat16"},
        training_inputs() | {"data": training_inputs()["data"] | {"args": {"size": 128}}},
    ],
)
def test_what_nothing_like_was_run_of_is_unknown(store: Store, other: dict[str, Any]) -> None:
    assert history(store).estimate_training(other, 10) == CostEstimate()
    assert history(store).estimate_prediction(maps_inputs(other), 10) == CostEstimate()


def test_another_machine_tells_nothing_of_this_one(store: Store) -> None:
    for elsewhere in (
        CostHistory(StoreIndex(store), "another", 2),
        CostHistory(StoreIndex(store), "a machine", 1),
    ):
        assert elsewhere.estimate_training(training_inputs(seed=1), 10) == CostEstimate()
        assert (
            elsewhere.estimate_prediction(maps_inputs(training_inputs(seed=1)), 10)
            == CostEstimate()
        )


def test_more_steps_of_several_networks_are_not_scaled(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "checkpoint", training_inputs(coder_steps=5), TRAINED)
    assert (
        history(store).estimate_training(training_inputs(coder_steps=5, seed=1), 10).seconds == 50
    )
    assert (
        history(store).estimate_training(training_inputs(coder_steps=5, steps=9), 10).seconds
        is None
    )


def test_a_look_takes_as_long_as_there_are_samples(store: Store) -> None:
    estimate = history(store).estimate_prediction(maps_inputs(training_inputs(seed=4), "val"), 60)
    assert estimate == CostEstimate(30.0, 80 * 3, 700.0, "1 earlier prediction")
    deeper = history(store).estimate_prediction(
        maps_inputs(training_inputs(), levels=(10, 999)), 60
    )
    assert deeper.seconds is None, "other levels take another time, and which is not known"
    assert deeper.bytes == 80 * 3 // 2


def test_every_repeat_of_a_prediction_takes_as_long(store: Store) -> None:
    inputs = maps_inputs(training_inputs(seed=4), "val") | {"repeats": [5, "diagonal"]}
    assert history(store).estimate_prediction(inputs, 60).seconds == 5 * 30


def test_a_judgement_takes_as_long_as_one_of_the_same_samples(tmp_path: Path) -> None:
    store = Store(tmp_path)
    evaluation = {
        "maps": {"test": maps_inputs(training_inputs())},
        "protocol": {"threshold": "a"},
        "code": "x",
    }
    put(store, "record", evaluation, {})
    record = next(store.artifacts("record"))
    other = {**evaluation, "maps": {"test": maps_inputs(training_inputs("THOR"))}}
    assert history(store).estimate_evaluation(other).seconds == record.seconds
    assert (
        history(store).estimate_evaluation({**evaluation, "protocol": {"threshold": "b"}}).seconds
        is None
    )


def test_strangers_in_the_store_are_no_hindrance(store: Store) -> None:
    for kind in ("checkpoint", "maps", "record"):
        put(store, kind, {"some": "thing"}, {})
        put(
            store,
            kind,
            training_inputs("Old") if kind == "checkpoint" else maps_inputs(training_inputs("Old")),
            HERE,
        )
    assert history(store).estimate_training(training_inputs(seed=1), 10).seconds == 50
    assert history(store).estimate_training(training_inputs("Old"), 10) == CostEstimate()
    assert history(store).estimate_evaluation({"maps": {}, "protocol": {}}).seconds is None


PLUGIN = Path(__file__).parents[2] / "plugin" / "registry.yaml"


def planned(*seeds: int, **options: Any) -> list[Experiment]:
    names = Registry.read(PLUGIN)
    config = RunConfig(["brightness"], ["bumps"], "tiny", seeds=seeds or (0,), baselines=False)
    return expand_matrix(replace(config, **options), names)


def rows(store: Store, todo: list[Experiment], **options: Any) -> list[dict[str, Any]]:
    return preview_run(
        todo, TrainingContext(), store, ConsoleReporter(Console(quiet=True)), **options
    )


def test_maps_are_counted_before_there_are_any(tmp_path: Path) -> None:
    (row,) = rows(Store(tmp_path), planned())
    sizes = {stage["stage"]: stage["bytes"] for stage in row["stages"]}
    pixels, levels = 16 * 16, 1
    assert sizes["predict val"] == 20 * levels * (4 * pixels + 8)
    assert sizes["predict calibration"] == 10 * levels * (4 * pixels + 8)
    assert sizes["train"] == 0, "it learns nothing"
    assert {stage["seconds"] for stage in row["stages"]} == {None}
    assert {stage["source"] for stage in row["stages"]} == {"unknown"}


def test_a_measurement_is_made_once_for_all_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def measure_training(*args: Any) -> CostEstimate:
        calls.append("training")
        return CostEstimate(60.0, memory_mb=5.0, source="measured now")

    def measure_prediction(*args: Any) -> CostEstimate:
        calls.append("prediction")
        return CostEstimate(2.0, memory_mb=7.0, source="measured now")

    monkeypatch.setattr(probe, "measure_training", measure_training)
    monkeypatch.setattr(probe, "measure_prediction", measure_prediction)
    assert rows(Store(tmp_path), planned(0, 1)) and not calls, "not unasked"
    result = rows(Store(tmp_path), planned(0, 1), measure=True)
    assert sorted(calls) == ["prediction", "training"]
    for row in result:
        seconds = {stage["stage"]: stage["seconds"] for stage in row["stages"]}
        assert seconds == {
            "train": 60.0, "predict calibration": 20.0, "predict val": 40.0, "predict test": 40.0,
            "evaluate": None,
        }  # fmt: skip


def test_what_is_measured_is_of_this_method(tmp_path: Path) -> None:
    (row,) = rows(Store(tmp_path), planned(), measure=True)
    stages = {stage["stage"]: stage for stage in row["stages"]}
    assert stages["train"]["seconds"] is None
    assert stages["train"]["source"] == "not measured: it does not train in steps"
    assert stages["predict val"]["source"] == "measured now"
    assert stages["predict val"]["seconds"] == 2 * stages["predict calibration"]["seconds"] > 0


class Counting(list[Sample]):
    """A split that counts how often it is read from end to end."""

    read = 0

    def manifest(self) -> list[Any]:
        Counting.read += 1
        return []


def test_a_split_is_described_once_for_all_methods_and_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = planned(*range(30))
    cls = todo[0].dataset.load()
    sample = Sample(torch.zeros(1, 8), "a", "a", label=False)
    monkeypatch.setattr(cls, "_part", lambda self, name, abnormal: Counting([sample]))
    monkeypatch.setattr(Counting, "read", 0)
    assert len(rows(Store(tmp_path), todo)) == 30
    assert Counting.read == 4
    dataset = cls()
    for labelled in (False, True):
        Splits(dataset, labelled=labelled).digest("train")
    Splits(dataset, limit=5).digest("train")
    assert Counting.read == 7, "but what differs is"


def test_an_experiment_that_is_cached_costs_no_more_than_five_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand of them are planned in seconds, whatever else the store holds."""
    store, todo = Store(tmp_path), planned(*range(8))
    for row in rows(store, todo):
        for stage in row["stages"]:
            assert stage["state"] == "to do"
    dataset = todo[0].dataset.load()()
    for experiment in todo:
        inputs = resolve(experiment, dataset, TrainingContext().numerics).key_inputs
        put(store, "checkpoint", inputs.checkpoint, {})
        put(store, "record", inputs.record, {})
        for maps in inputs.maps.values():
            put(store, "maps", maps, {})
    for number in range(20):
        put(store, "maps", {"another": number}, {})
    checked: list[Path] = []

    def counted(folder: Path, key_inputs: Mapping[str, Any]) -> bool:
        checked.append(folder)
        return quick_check(folder, key_inputs)

    monkeypatch.setattr("adbench.benchmark.store.index.quick_check", counted)
    for reads in ("read_metadata", "artifacts", "find"):
        monkeypatch.setattr(Store, reads, None)
    for cls in {experiment.method.load() for experiment in todo}:
        assert loaded_code_digest(cls)
    monkeypatch.setattr("adbench.benchmark.registry.code_fingerprint.code_fingerprint", None)
    result = rows(store, todo)
    assert {stage["state"] for row in result for stage in row["stages"]} == {"cached"}
    assert len(checked) == len(set(checked)) == 5 * len(todo)


def test_a_quick_check_sees_what_is_missing_or_cut(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, "maps", {"a": [1, 2]}, {})
    folder = store.folder("maps", cache_key({"a": (1, 2)}))
    assert quick_check(folder, {"a": [1, 2]}) and not quick_check(folder, {"a": [1, 3]})
    (folder / "x").write_bytes(b"short")
    assert not quick_check(folder, {"a": [1, 2]})
    (folder / "x.json").write_text("[]")
    assert not quick_check(folder, {"a": [1, 2]}) and not quick_check(tmp_path / "none", {})


def stage(kind: str, key: str, state: str = "to do", **more: Any) -> dict[str, Any]:
    names = {"checkpoint": "train", "maps": "predict test", "record": "evaluate"}
    unknown: dict[str, Any] = {
        "seconds": None,
        "bytes": None,
        "memory_mb": None,
        "source": "unknown",
    }
    return (
        {"stage": names[kind], "kind": kind, "key": key, "state": state, "why": []} | unknown | more
    )


def test_what_two_experiments_share_counts_once() -> None:
    shared = stage("checkpoint", "a", seconds=7200.0, bytes=3 * 10**9, memory_mb=4000.0)
    rows = [
        {"experiment": name, "skip": "", "stages": [shared, stage("record", name, seconds=1.0)]}
        for name in ("one", "two")
    ]
    lines = format_totals(rows, 10**10, 8000.0)
    assert lines[0] == "2 experiments: 0 stages cached, 3 to do"
    assert lines[1] == "time    2.0 h, one after another"
    assert lines[2] == "disk    about 3.0 GB; 10 GB free"
    assert lines[3].startswith("memory  4.0 GB at its peak") and "8.0 GB" in lines[3]
    tight = format_totals(rows, 10**9, 3000.0)
    assert "NOT ENOUGH" in tight[2] and "MORE THAN THERE IS" in tight[3]


def test_what_is_unknown_is_said_to_be() -> None:
    row = {
        "experiment": "one",
        "skip": "",
        "stages": [stage("checkpoint", "a"), stage("record", "b")],
    }
    lines = format_totals([row], None, None)
    assert lines[1].startswith("time    unknown (--measure") and lines[2] == "disk    unknown"
    assert lines[3] == "memory  unknown"
    row["stages"][0]["seconds"] = 5.0
    assert format_totals([row], None, None)[1] == (
        "time    5 s, and 1 of unknown length, one after another"
    )


def test_a_cause_is_told_where_it_first_matters(tmp_path: Path) -> None:
    a, b = "a" * 32, "b" * 32
    why = ["train.args.lr: 0.0001 -> 2e-05", f'train.code: "{a}" -> "{b}"']
    first = stage("checkpoint", "a", why=[line.removeprefix("train.") for line in why])
    row = {"experiment": "one", "skip": "", "stages": [first, stage("maps", "b", why=why)]}
    done = {"experiment": "two", "skip": "", "stages": [stage("maps", "c", "cached")]}
    lines = format_preview([row, done], tmp_path / "none", "cpu")
    assert "argument lr: 0.0001 -> 2e-05; the code of the method" in lines[1]
    assert lines[1].endswith("changed") and lines[2].endswith("follows from that")
    assert lines[3] == "two  cached"


def test_the_device_is_the_one_that_runs() -> None:
    preview = StagePreview(StoreIndex(Store(Path("none"))), TrainingContext(), False)
    assert preview.history.device == device_name("cpu")
    assert preview.history.threads == torch.get_num_threads()
    assert total_memory_mb("cpu") is not None and free_bytes(Path("none/at/all")) is not None
