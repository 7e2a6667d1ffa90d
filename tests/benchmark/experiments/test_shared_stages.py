"""A first stage is trained once for all methods that begin alike, and for no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adbench.benchmark.experiments.shared_stages import SharedStageCache, module_digest
from adbench.benchmark.store.artifact_store import Store
from adbench.datasets.base import Spec
from adbench.engine.codecs.autoencoder import VQ
from adbench.engine.codecs.training import CodecTraining
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.training.loop import Training
from adbench.engine.transforms.resizing import ResizePad
from adbench.methods.ldm import LDM
from adbench.methods.ldm_ood import LDMOOD
from small import build_small, samples

TRAIN = {"data": {"samples": "these"}, "seed": 0, "numerics": "float32", "method": "anything"}
SAME: dict[str, Any] = {"batch": 2, "coder_lr": 1e-3, "code_decay": 0.9, "looks": 0.0,
    "adversary": 0.0}  # fmt: skip


def fitted(cls: type, stages: SharedStageCache, run: TrainingContext, **more: Any) -> Any:
    own = {"coder_batch": 2, "spectrum": 0.0} if cls is LDMOOD else {}
    result = build_small(cls, Spec(1, (16, 16)), **SAME | own | more)
    result.fit(
        samples((16, 16), 6, 1), samples((16, 16), 4, 1, "h"), replace(run, shared_stages=stages)
    )
    return result


def codec(**more: Any) -> VQ:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VQ((1, 8, 8), latent_channels=2, widths=(4,), res_blocks=1, codes=4, **more)


def stage(module: VQ | None = None, **more: Any) -> CodecTraining:
    plan = Training(more.pop("steps", 2), 2, 1e-3, ema=None)
    return CodecTraining(module or codec(), plan, ResizePad((8, 8), low=0.0), **more)


def test_two_methods_share_an_autoencoder_and_its_weights_are_those_of_one_alone(
    tmp_path: Path,
) -> None:
    store, run = Store(tmp_path), TrainingContext()
    first, second = SharedStageCache(store, TRAIN, run), SharedStageCache(store, TRAIN, run)
    alone = fitted(LDMOOD, SharedStageCache(Store(tmp_path / "other"), TRAIN, run), run)
    ldm, ood = fitted(LDM, first, run), fitted(LDMOOD, second, run)
    assert first.keys == second.keys and first.reused_seconds == 0 < second.reused_seconds
    for key, value in ldm.codec.state_dict().items():
        assert torch.equal(value, ood.codec.state_dict()[key])
    for key, value in alone.state_dict().items():
        assert torch.equal(value, ood.state_dict()[key]), key


@pytest.mark.parametrize(
    "other",
    [
        lambda: (stage(steps=3), TRAIN),
        lambda: (stage(fit_scale=False), TRAIN),
        lambda: (stage(codec(commitment=0.5)), TRAIN),
        lambda: (stage(), TRAIN | {"seed": 1}),
        lambda: (stage(), TRAIN | {"data": {"samples": "others"}}),
        lambda: (stage(), TRAIN | {"numerics": "bfloat16"}),
        lambda: (replace(stage(), canvas=ResizePad((8, 8), low=-1.0)), TRAIN),
    ],
)
def test_what_a_stage_depends_on_makes_another(other: Any, tmp_path: Path) -> None:
    result, train = other()
    one = SharedStageCache(Store(tmp_path), TRAIN, TrainingContext()).key_inputs(stage())
    assert SharedStageCache(Store(tmp_path), train, TrainingContext()).key_inputs(result) != one


def test_what_it_does_not_depend_on_makes_no_other(tmp_path: Path) -> None:
    one = SharedStageCache(Store(tmp_path), TRAIN, TrainingContext()).key_inputs(stage())
    module = codec()
    module.batch = 3
    train = TRAIN | {"method": "another"}
    assert (
        SharedStageCache(Store(tmp_path), train, TrainingContext()).key_inputs(stage(module.eval()))
        == one
    )


def test_other_first_weights_are_another_beginning() -> None:
    module = codec()
    before = module_digest(module)
    next(module.parameters()).data.view(-1)[0] += 1e-6
    assert module_digest(module) != before


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def learn() -> None:
        raise RuntimeError("no")

    stages = SharedStageCache(Store(tmp_path), TRAIN, TrainingContext())
    with pytest.raises(RuntimeError, match="no"):
        stages(stage(), learn)
    assert not stages.keys and Store(tmp_path).find("stage", stages.key_inputs(stage())) is None
