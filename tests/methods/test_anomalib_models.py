"""Models of anomalib as methods: against a stand-in of its public interface, and against anomalib
itself where it is installed (it is no dependency of the tests: `pip install anomalib`)."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import adbench
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Sample, Spec
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from anomalib_stand_in import install

MODELS = {"stand-in": "mean_image"} | ({"anomalib": "padim"} if find_spec("anomalib") else {})
"""A model of the stand-in, and one of anomalib where it is installed."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def samples(count: int, name: str, bright: bool = False) -> list[Sample]:
    x = torch.from_numpy(np.random.default_rng(0).uniform(0.4, 0.6, (count, 1, 16, 16))).float()
    x[:, :, 4:8, 6:12] += 0.4 * bright
    return [Sample(image, f"{name}{i}", f"{name}{i}", bright) for i, image in enumerate(x)]


def build(model: str, *options: str, channels: int = 1) -> Any:
    return Registry.read().method(f"anomalib:{model}").build(
        Spec(channels, (16, 16)), model=model, options=["pre_trained=false", *options],
        image_size=32, epochs=1,
    )  # fmt: skip


@pytest.mark.parametrize("source", MODELS)
def test_a_model_is_trained_on_a_small_folder_and_joins_the_board(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "stand-in":
        install(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for pool, count in {"train/good": 8, "test/good": 3, "test/hole": 3}.items():
        for sample in samples(count, pool, "hole" in pool):
            path = tmp_path / "images" / pool / f"{sample.key[-1]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (sample.x[0].numpy() * 255).round() + len(pool) + int(sample.key[-1])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    name = f"anomalib:{MODELS[source]}"
    results = adbench.run(
        name, "folder", data=tmp_path / "images", profile="check", executor="inline",
        settings={"folder.size": 16, "folder.channels": 1, f"{name}.options": ["pre_trained=false"],
                  f"{name}.image_size": 32},
        baselines=False, progress=False, device="cpu", out=tmp_path / "out",
        store=tmp_path / "store",
    )  # fmt: skip
    record = results.records[0]
    assert (record["reason"], record["method"]["name"]) == (None, name)
    assert record["method"]["label"] == f"{MODELS[source]} (anomalib)"
    assert record["metrics"]["image_auroc"]["value"] == 1
    assert ":" not in results.paths()[0].name
    detector = adbench.load(results.paths()[0], store=tmp_path / "store", data=tmp_path / "images")
    assert detector.localize(np.full((1, 16, 16), 0.5)).shape == (1, 16, 16)


def test_maps_are_moved_above_zero_in_their_order(stand_in: None) -> None:
    plain, shifted = build("mean_image"), build("MeanImage", "shift=0.5")
    x = torch.stack([sample.x for sample in samples(3, "test", bright=True)])
    outputs = []
    for method in (plain, shifted):
        method.fit(samples(8, "train"), samples(4, "held"), TrainingContext())
        outputs.append(method.detect(x, [0], Rng(["a", "b", "c"], 0)))
    raw, moved = outputs
    assert raw.map is not None and moved.map is not None
    assert float(shifted.offset) > 0 and float(plain.offset) == 0
    expected = (raw.map - 0.5 + shifted.offset).clamp(min=0)
    torch.testing.assert_close(moved.map, expected)
    torch.testing.assert_close(moved.score, raw.score - 0.5)


def test_colours_are_taken_as_they_are_and_steps_are_told(stand_in: None) -> None:
    method, events = build("mean_image", channels=3), list[Any]()
    train = [Sample(s.x.expand(3, 16, 16), s.key, s.group, False) for s in samples(40, "train")]
    context = TrainingContext(on_event=lambda event, facts: events.append((event, dict(facts))))
    method.fit(train, train[:4], context)
    assert [facts["step"] for event, facts in events if event == "train"] == [1, 2]
    with pytest.raises(Interrupted):
        method.fit(train, train[:4], TrainingContext(stop=lambda: True))


def test_what_cannot_be_is_one_line(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Registry.read().method("anomalib:mean_image")
    with pytest.raises(RuntimeError, match=r"weights \(https://hub.example/backbone.safetensors\)"):
        entry.build(Spec(1, (16, 16)), model="mean_image")
    with pytest.raises(ValueError, match="no model 'meanimag': did you mean meanimage"):
        build("meanimag")
    with pytest.raises(ValueError, match="unexpected keyword argument 'width'"):
        build("mean_image", "width=3")
    with pytest.raises(ValueError, match="options are texts NAME=VALUE, not 'x'"):
        build("mean_image", "x")
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        build("mean_image", channels=2)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    monkeypatch.delitem(sys.modules, "anomalib.models")
    with pytest.raises(RuntimeError, match=r"pip install 'diffusion-adbench\[anomalib\]'"):
        build("mean_image")
