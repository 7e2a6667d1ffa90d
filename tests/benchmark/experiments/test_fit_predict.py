"""Fitting and predicting where memory is short, and fitting along with the first process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.experiments.distributed import announce_training, run_follower
from adbench.benchmark.experiments.fit_predict import fit, predict
from adbench.benchmark.experiments.matrix import Experiment
from adbench.benchmark.registry.registry import Entry, Registry
from adbench.benchmark.store.artifact_store import Artifact, Store
from adbench.datasets.base import Dataset, Spec, Split
from adbench.engine.runtime.context import BatchedModule, Interrupted, TrainingContext
from adbench.engine.runtime.distributed import Team
from adbench.engine.runtime.fixed_batches import apply_in_batches
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from adbench.methods.base import Detection, Method
from teams import run_team
from trainings import MemoryStateStore

PLUGIN = Path(__file__).parents[2] / "plugin" / "registry.yaml"


class Hungry(BatchedModule):
    """Has room for three rows at a time; what it says shows the shape that it was shown."""

    def forward(self, x: Tensor) -> Tensor:
        return apply_in_batches(self._net, self.batch, x)

    def _net(self, x: Tensor) -> Tensor:
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.full_like(x, len(x))


class FitsThreeRows(Method):
    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.net, self.gain, self.plan = Hungry(), nn.Parameter(torch.ones(1)), Training(4, 8, 0.1)

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return (self.gain * x).square().flatten(1).mean(1)

        train_module(loss, self, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection.from_map(self.net(x)[None, :, 0])


@pytest.fixture
def dataset() -> Dataset:
    return Registry.read(PLUGIN).dataset("bumps").load()(size=70)


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    registry = Registry.read(PLUGIN)
    monkeypatch.setattr(Entry, "load", lambda self: FitsThreeRows)
    return Experiment(
        registry.method("brightness"), {}, registry.dataset("bumps"), {}, 0, "", Protocol()
    )


class EventLog(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        self.append((event, dict(facts)))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self if name == event]


def fitted(path: Path, method: Method, dataset: Dataset, context: TrainingContext) -> Any:
    return fit(path, method, dataset.train(), dataset.calibration(), context)


def predicted(path: Path, method: Method, dataset: Dataset, context: TrainingContext) -> Any:
    return predict(path, method, dataset.test(), [0], context, name="test")


def test_a_prediction_finds_the_batch_that_fits_and_records_it(
    tmp_path: Path, dataset: Dataset
) -> None:
    events = EventLog()
    run = TrainingContext(batch=8, on_event=events)
    method = run.place(FitsThreeRows(dataset.spec))
    assert isinstance(method, FitsThreeRows)
    meta = predicted(tmp_path / "a.h5", method, dataset, run)
    assert events.of("oom") == [{"batch": 4}, {"batch": 2}]
    assert meta["batch"] == 2 and len(dataset.test()) == 70
    with h5py.File(tmp_path / "a.h5") as file:
        score = file["score"]
        assert isinstance(score, h5py.Dataset) and (score[()] == 2).all()


def test_a_resumed_prediction_keeps_the_batch_it_began_with(
    tmp_path: Path, dataset: Dataset
) -> None:
    """Three would fit, but two it was."""
    memory, asked = MemoryStateStore(), iter([False, True])
    run = TrainingContext(batch=8, stop=lambda: next(asked), state_store=memory)
    method = run.place(FitsThreeRows(dataset.spec))
    assert isinstance(method, FitsThreeRows)
    with pytest.raises(Interrupted):
        predicted(tmp_path / "a.h5", method, dataset, run)
    events = EventLog()
    run = TrainingContext(batch=3, state_store=memory, on_event=events)
    run.place(method)
    meta = predicted(tmp_path / "a.h5", method, dataset, run)
    assert events.of("oom") == [] and meta["batch"] == 2


def test_a_fit_records_how_many_rows_fitted(tmp_path: Path, dataset: Dataset) -> None:
    events = EventLog()
    context = TrainingContext(on_event=events)
    meta = fitted(tmp_path / "w", FitsThreeRows(dataset.spec), dataset, context)
    assert meta["train_micro_batch"] == 2
    assert events.of("oom") == [{"at": 0, "micro": 4}, {"at": 0, "micro": 2}]
    meta = fitted(tmp_path / "w", FitsThreeRows(dataset.spec), dataset, TrainingContext(micro=1))
    assert meta["train_micro_batch"] == 1


def test_every_stage_of_a_training_is_counted(tmp_path: Path, dataset: Dataset) -> None:
    class Twice(FitsThreeRows):
        def __init__(self, spec: Spec) -> None:
            super().__init__(spec)
            self.first = Training(10, 3, 0.1)

    meta = fitted(tmp_path / "w", Twice(dataset.spec), dataset, TrainingContext())
    assert meta["train_steps"] == 4 + 10 and meta["train_samples"] == 4 * 8 + 10 * 3


class Scripted(Team):
    """The second of two processes, that hears what the test has the first say."""

    rank = 1

    def __init__(self, *says: bool) -> None:
        self.says, self.sent = list(says), list[bool]()

    def broadcast_flag(self, flag: bool) -> bool:
        self.sent.append(flag)
        return self.says.pop(0) if self.says else flag


def test_the_others_train_along_when_they_are_called(
    dataset: Dataset, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def fit_along(
        self: FitsThreeRows, train: Split, calibration: Split, run: TrainingContext
    ) -> None:
        trained.append(type(run.state_store).__name__)
        if len(trained) == 2:
            raise RuntimeError("fails here as it does there")

    monkeypatch.setattr(FitsThreeRows, "fit", fit_along)
    team = Scripted(True, False, True, True)
    run_follower([experiment] * 4, dataset, TrainingContext(team=team))
    assert trained == ["NullStateStore"] * 3 and team.says == []
    monkeypatch.setattr(FitsThreeRows, "fit", stopped)
    with pytest.raises(Interrupted):
        run_follower([experiment], dataset, TrainingContext(team=Scripted(True)))


def stopped(self: FitsThreeRows, train: Split, calibration: Split, run: TrainingContext) -> None:
    raise Interrupted


def test_the_first_calls_them_before_it_trains_or_says_that_it_does_not() -> None:
    team = Scripted()
    with announce_training(team) as call:
        call()
    assert team.sent == [True]
    with announce_training(team):
        pass
    with pytest.raises(ZeroDivisionError), announce_training(team):
        raise ZeroDivisionError
    assert team.sent == [True, False, False]


def test_a_team_makes_one_checkpoint_that_is_the_one_of_a_single_process(
    tmp_path: Path, dataset: Dataset, experiment: Experiment
) -> None:
    def work(run: TrainingContext) -> int:
        """Two experiments, of which the second is already in the store."""

        def once() -> Artifact:
            with announce_training(run.team) as call:

                def make(path: Path) -> Mapping[str, Any]:
                    call()
                    return fitted(path, FitsThreeRows(dataset.spec), dataset, run)

                return Store(tmp_path).get_or_create("checkpoint", {"of": "it"}, make, name="w")

        if run.team.rank:
            run_follower([experiment, experiment], dataset, run)
            return 0
        once()
        return once().metadata["train_steps"]

    assert run_team(work) == [4, 0]
    fitted(tmp_path / "alone", FitsThreeRows(dataset.spec), dataset, TrainingContext())
    (path,) = tmp_path.glob("checkpoint/*/*/w")
    for key, value in load_file(tmp_path / "alone").items():
        torch.testing.assert_close(load_file(path)[key], value, rtol=1e-6, atol=1e-6)


class SizeRecorder(Method):
    """Stores how many samples it sees together; its networks take `batch` rows at a time."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.net, self.sizes = BatchedModule(), list[int]()

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        """Learn nothing."""

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        self.sizes.append(len(x))
        noise = rng.normal(x.shape[2:])
        return Detection.from_map((x[:, 0] + noise).abs()[None], x[None])


@pytest.mark.parametrize(("batch", "sizes"), [(8, [32, 32, 6]), (64, [64, 6]), (128, [70])])
def test_shards_that_fill_a_batch_are_predicted_together(
    batch: int, sizes: list[int], dataset: Dataset, tmp_path: Path
) -> None:
    """And are the same shards, whatever the batch; a batch-dependent method has one at a time."""
    outcomes = list[dict[str, Tensor]]()
    for rows, expected, dependent in (
        (8, [32, 32, 6], False), (batch, sizes, False), (batch, [32, 32, 6], True)
    ):  # fmt: skip
        method, store = SizeRecorder(dataset.spec), MemoryStateStore()
        method.batch_dependent = dependent
        context = TrainingContext(batch=rows, state_store=store)
        context.place(method)
        facts = predict(
            tmp_path / "maps.h5", method, dataset.test(), [0], context, name="test",
            gallery=[1, 40, 41, 69],
        )  # fmt: skip
        assert method.sizes == expected and facts["samples"] == 70
        assert sorted(store.states) == ["shard-0", "shard-32", "shard-64"]
        assert [len(store.states[f"shard-{n}"]["score"][0]) for n in (0, 32, 64)] == [32, 32, 6]
        with h5py.File(tmp_path / "maps.h5") as file:
            outcomes.append({key: torch.from_numpy(file[key][()]) for key in file})  # pyright: ignore
    for outcome in outcomes[1:]:
        for key, value in outcomes[0].items():
            torch.testing.assert_close(outcome[key], value, rtol=0, atol=0, equal_nan=True)
        assert outcome["reconstruction"].shape[1] == 4


def test_shards_that_are_there_are_not_predicted_again(dataset: Dataset, tmp_path: Path) -> None:
    method, store = SizeRecorder(dataset.spec), MemoryStateStore()
    context = TrainingContext(batch=128, state_store=store)
    context.place(method)
    predicted(tmp_path / "maps.h5", method, dataset, context)
    del store.states["shard-0"], store.states["shard-64"]
    method.sizes.clear()
    predicted(tmp_path / "again.h5", method, dataset, context)
    assert method.sizes == [32, 6]
    assert (tmp_path / "maps.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
