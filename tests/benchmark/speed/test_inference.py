"""What is timed is the same job, what is counted is what was done, and the page shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

from adbench.benchmark.cli import speed as cli_speed
from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.experiments.fit_predict import fit
from adbench.benchmark.experiments.matrix import Experiment
from adbench.benchmark.experiments.resolve import build_method
from adbench.benchmark.registry.registry import Entry
from adbench.benchmark.speed import inference
from adbench.benchmark.speed.data_loading import measure_loading, measure_noise
from adbench.benchmark.speed.inference import measure_inference, spread
from adbench.benchmark.speed.reference_implementations import (
    REFERENCES,
    RepeatedPrediction,
    plain_reverse_process,
)
from adbench.benchmark.speed.report import file_name, format_page, write_report
from adbench.datasets.base import Spec, Split
from adbench.datasets.phantom import Phantom
from adbench.engine.diffusion.denoiser import Denoiser, PredictionType
from adbench.engine.diffusion.gaussian import Variance
from adbench.engine.diffusion.schedule import linear_schedule, sampling_levels
from adbench.engine.noise.noise import gaussian
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import SamplingConfig, reconstruct, repeat_streams
from adbench.engine.training.loop import Training, train_module
from adbench.methods.base import Detection, Method
from known import SmoothNetwork

SIDE = 16
CONTEXT = TrainingContext(batch=4)
MACHINE = {"device": "A Machine (R)", "kind": "cpu", "threads": 1, "torch": "2", "dtype": "float32",
         "compile": False, "batch": 4, "peak_gflops": 100.0}  # fmt: skip


class Small(nn.Module):
    """One convolution; it records its timesteps."""

    flops = 2 * SIDE**2 * 9

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.timesteps: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.timesteps.append(t.tolist())
        return self.conv(x)


class Chains(Method):
    """Reconstructs and compares, as the simplest of diffusion's detectors do."""

    levels, published = (100, 300), 300

    def __init__(
        self, spec: Spec, *, sampling_steps: int | None = 5, repeats: int = 2, eta: float = 1.0
    ) -> None:
        super().__init__(spec)
        self.denoiser = Denoiser(Small(), linear_schedule(), clip=(-1, 1))
        self.chain, self.plan = (
            SamplingConfig(sampling_steps, eta, repeats=repeats),
            Training(50, 4, 1e-3),
        )

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(x, rng)

        train_module(loss, self.denoiser, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        healthy = reconstruct(self.denoiser, x, levels, rng, sampling=self.chain)
        return Detection.from_map((healthy.mean(2) - x).square().mean(2))


class Still(Method):
    """Has no network and learns nothing."""

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        pass

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection.from_map(x.abs().mean(1).expand(len(levels), *x[:, 0].shape))


@dataclass(frozen=True)
class LocalEntry(Entry):
    def load(self) -> Any:
        return {"chains": Chains, "still": Still}[self.name]


def experiment(method: str, levels: tuple[int, ...] | None = None, **args: Any) -> Experiment:
    entries = [LocalEntry(method, "methods", "", "", ""), Entry("phantom", "datasets", "", "", "")]
    method_args = {"sampling_steps": 5, **args} if method == "chains" else args
    return Experiment(entries[0], method_args, entries[1], {}, 0, "tiny", Protocol(), levels)


@pytest.fixture(scope="module")
def data() -> Phantom:
    return Phantom(shape=(SIDE, SIDE), train=12, abnormal=2, held_out=2, val=2, test=4)


@pytest.mark.parametrize("predicts", ["noise", "clean", "v"])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("clip", [(-1.0, 1.0), None])
def test_the_plain_loop_ends_where_the_engine_does(
    predicts: PredictionType,
    variance: Variance,
    steps: int | None,
    clip: tuple[float, float] | None,
) -> None:
    levels, repeats, net, schedule = (
        [1, 400] if steps else [1, 15],
        2,
        SmoothNetwork(),
        linear_schedule(),
    )
    denoiser = Denoiser(net, schedule, prediction_type=predicts, clip=clip).eval()
    sampling, rng = SamplingConfig(steps, variance=variance, repeats=repeats), Rng(["a", "b"], 3)
    x = rng.fork("x").normal((1, 6, 5)) / 2
    engine = reconstruct(denoiser, x, levels, rng, sampling=sampling)  # (L, N, R, C, *S)
    calls = len(net.timesteps)
    streams = repeat_streams(rng, repeats)
    for index in torch.cartesian_prod(*[torch.arange(n) for n in engine.shape[:3]]):
        level, sample, repeat = index.tolist()
        stream = streams.rows(torch.tensor([repeat * len(x) + sample]))

        def draw_noise(purpose: str, at: int, rng: Rng = stream) -> Tensor:
            noise_stream = rng.fork(purpose).at(at if purpose == "step" else 0)
            return gaussian(noise_stream, x.shape[1:], torch.tensor([at]))

        path = sampling_levels(levels[level], steps)
        healthy = plain_reverse_process(
            net, x[sample : sample + 1], schedule.alpha_bar.tolist(), path,
            draw_noise,
            predicts=predicts, clip=clip, small_variance=variance == "small",
        )  # fmt: skip
        torch.testing.assert_close(healthy[0], engine[level, sample, repeat], rtol=1e-4, atol=2e-5)
    assert sum(map(len, net.timesteps[calls:])) == repeats * len(x) * sum(
        len(sampling_levels(level, steps)) - 1 for level in levels
    )


def test_what_is_counted_is_what_was_done(data: Phantom) -> None:
    measurement = measure_inference(
        experiment("chains"), data, CONTEXT, images=3, rounds=3, machine=MACHINE
    )
    evaluations = 2 * 2 * 5  # levels, repeats, steps
    assert measurement["evaluations_per_image"] == evaluations
    assert measurement["gflops_per_image"] == pytest.approx(evaluations * Small.flops / 1e9)
    assert measurement["gflops_of_denoisers"] == measurement["gflops_per_image"]
    assert (
        measurement["levels"] == [100, 300]
        and measurement["images"] == 3
        and measurement["parameters"] == 10
    )
    assert len(measurement["ms_per_image"]["all"]) == 3
    assert measurement["rows_filled"] == 1, "twelve chains fill four slots to the end"
    assert 0 < measurement["time_in_networks"] < 1
    share, time = measurement["share_of_peak"], measurement["ms_per_image"]
    assert share["max"] == pytest.approx(measurement["gflops_per_image"] / time["min"] * 1e3 / 100)
    assert json.loads(json.dumps(measurement)) == measurement


def fitted(config: Experiment, data: Phantom, context: TrainingContext, path: Path) -> Any:
    method = build_method(config, data.spec)
    return fit(path, method, data.train(), data.calibration(), context)


def test_a_record_counts_the_same(data: Phantom, tmp_path: Path) -> None:
    context = TrainingContext(batch=4, on_event=lambda event, fields: None)
    meta = fitted(experiment("chains"), data, context, tmp_path / "w")
    assert meta["gflops_per_evaluation"] == pytest.approx(Small.flops / 1e9)
    assert meta["train_gflops"] == pytest.approx(3 * Small.flops * 50 * 4 / 1e9)
    meta = fitted(experiment("still"), data, context, tmp_path / "w")
    assert meta["gflops_per_evaluation"] == meta["train_gflops"] == 0


def test_the_levels_asked_for_are_swept_and_no_others(data: Phantom) -> None:
    measurement = measure_inference(
        experiment("chains", (50,)), data, CONTEXT, images=1, rounds=1, machine=MACHINE
    )
    assert measurement["levels"] == [50]
    measurement = measure_inference(
        experiment("still", (50,)), data, CONTEXT, images=1, rounds=1, machine=MACHINE
    )
    assert measurement["levels"] == [0]


def test_references_compute_the_same(data: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = Small.forward

    def forward(self: Small, x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return original(self, x, t)

    monkeypatch.setattr(Small, "forward", forward)
    planned = experiment("chains", sampling_steps=3)
    batch = torch.stack([data.test()[i].x for i in range(3)])
    method = build_method(planned, data.spec).eval()
    predict = RepeatedPrediction(method, batch, ["a", "b", "c"], [100, 300], CONTEXT)
    rows = 3 * 2 * 2 * 3
    loop = REFERENCES["loop"](planned, predict, rows)
    loop.slow()
    assert "timestep" in loop.description and calls == [1] * rows
    assert loop.fast is predict
    calls.clear()
    other = REFERENCES["loop"](planned, predict, rows + 1)  # it does more than its chains
    other.slow()
    assert "its own detect" in other.description and calls == [1] * rows
    separate = REFERENCES["separate"](planned, predict, rows)
    together, one = predict(), predict.predict(slice(None), [300])
    assert torch.equal(together.score[1], one.score[0]) and separate.fast is predict
    calls.clear()
    fewer = REFERENCES["fewer"](planned, predict, rows)
    fewer.slow()
    assert sum(calls) >= 3 * 2 * (100 + 300) and fewer.fast is predict
    every_step = experiment("chains", sampling_steps=None)
    assert REFERENCES["fewer"](every_step, predict, rows).slow is predict


def test_a_chain_that_is_not_ancestral_has_no_plain_loop(data: Phantom) -> None:
    measurement = measure_inference(
        experiment("chains", eta=0.0),
        data,
        CONTEXT,
        images=1,
        rounds=1,
        references=["loop"],
        machine=MACHINE,
    )
    assert "its own detect" in measurement["against"]["loop"]["what"]


def test_what_cannot_be_compared_says_why(data: Phantom) -> None:
    names = ["loop", "separate", "fewer"]
    measurement = measure_inference(
        experiment("still"), data, CONTEXT, images=2, rounds=2, references=names, machine=MACHINE
    )
    assert measurement["against"]["separate"] == {"unfit": "sweeps one level only"}
    assert measurement["against"]["fewer"] == {"unfit": "takes no sampling_steps"}
    assert measurement["against"]["loop"]["ratio"]["median"] > 0
    assert measurement["evaluations_per_image"] == measurement["gflops_per_image"] == 0
    assert "*takes no sampling_steps*" in format_page([measurement])


def test_loading_is_compared_with_training(data: Phantom) -> None:
    measurement = measure_loading(
        experiment("chains"), data, CONTEXT, samples=10, rounds=2, machine=MACHINE
    )
    assert measurement["samples"] == 8 and measurement["batch"] == 4
    assert measurement["trained_per_second"] > 0
    loaded = measurement["loaded_per_second"]["min"]
    assert measurement["keeps_up"] == pytest.approx(loaded / measurement["trained_per_second"])
    still = measure_loading(
        experiment("still"), data, CONTEXT, samples=4, rounds=1, machine=MACHINE
    )
    assert still["trained_per_second"] is None and still["keeps_up"] is None
    assert "does not train in steps" in format_page([measurement, still])


def test_noise_is_compared_with_the_same_fields() -> None:
    measurement = measure_noise(CONTEXT, size=24, images=2, rounds=1, machine=MACHINE)
    assert measurement["largest_difference"] < 1e-6
    assert measurement["ms_per_field"]["median"] > 0 and measurement["ratio"]["median"] > 0


def test_a_spread_is_of_its_values() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2, "min": 1, "max": 3, "all": [3, 1, 2]}


def measurement_of(label: str, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1, "what": "method", "method": {"name": label.lower(), "label": label},
        "dataset": {"name": "phantom", "channels": 1, "shape": [32, 32]}, "profile": "tiny",
        "levels": [100], "images": 4, "machine": MACHINE, "evaluations_per_image": 12.0,
        "gflops_per_image": 0.12345, "ms_per_image": spread([9.0, 10.0, 12.0]),
        "images_per_second": spread([83.0, 100.0, 111.0]),
        "share_of_peak": spread([0.1, 0.123, 0.137]), "rows_filled": 0.5,
        "time_in_networks": 0.9, "peak_memory_mb": 1234.5,
        "against": {"loop": {"what": "", "ratio": spread([2.0, 2.25, 3.0])}},
    } | more  # fmt: skip


def test_the_page_says_what_the_files_say(tmp_path: Path) -> None:
    paths = write_report(
        [measurement_of("One"), measurement_of("Two", levels=[100, 250])], tmp_path
    )
    text = (tmp_path / "speed.md").read_text()
    assert paths[-1] == tmp_path / "speed.md" and len(paths) == 3
    assert "## A Machine (R), 1 thread, float32, torch 2" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| One ")]
    for text_part in ("10 [9, 12]", "0.123", "12.3 % [10, 13.7]", "1,234", "2.25x [2, 3]", "50 %"):
        assert text_part in row
    assert "| 100, 250 |" in text
    write_report([], tmp_path)
    assert (tmp_path / "speed.md").read_text() == text, "it is made of the files alone"
    paths[0].unlink()
    write_report([measurement_of("Two", levels=[100, 250], gflops_per_image=7.0)], tmp_path)
    text = (tmp_path / "speed.md").read_text()
    assert "| One " not in text and text.count("| Two ") == 1 and "| 7 |" in text


def test_another_circumstance_is_another_file() -> None:
    measurements = [
        measurement_of("One"),
        measurement_of("One", levels=[5]),
        measurement_of("One", profile="paper"),
        measurement_of("One", what="loading"),
        measurement_of("One", machine=MACHINE | {"compile": True}),
        measurement_of("One", machine=MACHINE | {"dtype": "bfloat16"}),
        measurement_of("One", machine=MACHINE | {"threads": 2}),
        measurement_of("One", machine=MACHINE | {"device": "Another"}),
        measurement_of("One", machine=MACHINE | {"batch": 8}),
    ]
    names = {file_name(measurement) for measurement in measurements}
    assert len(names) == len(measurements)
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-._") for text in names)


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(cli_speed.speed)
    return app


SMALL = ["--set", "shape=[16,16]", "--set", "test=2", "--images", "2", "--rounds", "1"]


def test_a_shell_gets_files_and_a_page(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "describe_machine", lambda context: MACHINE)
    out, everything = tmp_path / "out", tmp_path / "all.json"
    argv = ["-m", "healthy-mean", "--out", str(out), "--json", str(everything), *SMALL]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    (measurement,) = json.loads(everything.read_text())
    (path,) = (out / "speed").glob("*.json")
    assert (
        json.loads(path.read_text()) == measurement
        and measurement["method"]["name"] == "healthy-mean"
    )
    assert "Healthy mean" in (out / "speed.md").read_text() and "Healthy mean" in result.output


def test_a_failing_method_is_a_line_and_an_exit_code(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(inference, "describe_machine", lambda context: MACHINE)
    monkeypatch.setattr(inference, "measure_inference", fails)
    result = CliRunner().invoke(app, ["-m", "healthy-mean", "--out", str(tmp_path), *SMALL])
    assert result.exit_code == 3
    assert "healthy-mean  failed: RuntimeError: no such kernel" in result.output


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--against", "lopo"], "--against takes loop, separate, fewer, not 'lopo'"),
        (["-m", "anodppm"], "Did you mean 'anoddpm'?"),
        (["--levels", "0"], "--levels takes numbers in 1..1000, not '0'"),
    ],
)
def test_a_slip_is_one_line(app: typer.Typer, argv: list[str], message: str) -> None:
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 2 and message in result.output


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys, adbench.benchmark.cli.speed\n"
        "print({'torch', 'numpy', 'monai', 'rich.table'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
