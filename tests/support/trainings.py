"""A training small enough to be written out, beside the engine's loop and as a plain one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module


class TrainingSample:
    label = False

    def __init__(self, x: Tensor) -> None:
        self.x = x


DATA = [TrainingSample(Rng([f"d{i}"]).normal((3,))[0]) for i in range(20)]


class MemoryStateStore:
    """Keeps in a dictionary; copies, as a file would."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Tensor]] = {}
        self.saves = 0

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return self.states.get(name)

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        self.saves += 1
        self.states[name] = {key: value.clone() for key, value in state.items()}


def build_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))


def train_net(plan: Training, context: TrainingContext, net: nn.Module | None = None) -> nn.Module:
    net = net or build_net()
    train_module(lambda x, label, rng: denoising_error(net, x, rng), net, DATA, context, plan)
    return net


def denoising_error(net: nn.Module, x: Tensor, rng: Rng) -> Tensor:
    return (net(x + 0.1 * rng.fork("noise").normal((3,))) - x).square().mean(1)


def equal_states(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def assert_close_states(a: nn.Module, b: nn.Module) -> None:
    theirs = b.state_dict()
    for key, value in a.state_dict().items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-6)


def reference_training(plan: Training, seed: int) -> tuple[nn.Module, list[float]]:
    """The same training written out: a loop of torch's own parts over whole batches. Also the
    loss of every step."""
    net, losses = build_net(), []
    optimiser = torch.optim.AdamW(net.parameters(), plan.lr, weight_decay=plan.weight_decay)
    average = [p.detach().clone() for p in net.parameters()]
    streams = Rng([f"fit/{i}" for i in range(plan.batch)], seed)
    for k in range(plan.steps):
        rate = plan.lr * (0.5 + 0.5 * math.cos(math.pi * (k / plan.steps)))
        optimiser.param_groups[0]["lr"] = rate
        rng = streams.at(k)
        rows = rng.fork("pick").integers(len(DATA)).tolist()
        value = denoising_error(net, torch.stack([DATA[i].x for i in rows]), rng).mean()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), plan.clip or math.inf)
        optimiser.step()
        losses.append(value.item())
        with torch.no_grad():
            for mean, weight in zip(average, net.parameters(), strict=True):
                mean.lerp_(weight, 1 - (plan.ema or 0))
    with torch.no_grad():
        for mean, weight in zip(average, net.parameters(), strict=True):
            weight.copy_(mean)
    return net, losses
