"""The noise-aware classifier: the paper's size, the gradient it guides with, and its
independence of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adbench.engine.diffusion.schedule import build_schedule
from adbench.engine.networks.noisy_classifier import NoisyClassifier, build_encoder
from adbench.engine.profiling.cost import count_parameters
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module


@pytest.mark.parametrize(("channels", "count"), [(4, 5_452_962), (1, 5_452_098)])
def test_wollebs_classifier_has_the_papers_parameters(channels: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build_encoder((256, 256), channels, 2)) == count


def small(shape: tuple[int, ...]) -> NoisyClassifier:
    torch.manual_seed(0)
    net = build_encoder(
        shape, 1, 3, (8, 16), res_blocks=1, attention=(False, True), head_channels=8
    )
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    classifier = NoisyClassifier(net, build_schedule("linear", 1000)).eval()
    classifier.batch = 4
    return classifier


@pytest.mark.parametrize("shape", [(12,), (8, 6), (4, 6, 4)])
def test_any_number_of_axes_and_each_sample_by_itself(shape: tuple[int, ...]) -> None:
    net = small(shape)
    x, level = torch.randn(5, 1, *shape), torch.tensor([1, 5, 90, 300, 1000])
    label = torch.tensor([0, 1, 2, 1, 0])
    logits, pull = net(x, level), net.log_prob_gradient(x, level, label)
    assert logits.shape == (5, 3) and pull.shape == x.shape
    assert not torch.allclose(net(x, level.flip(0)), logits), "time is heard"
    for i in range(5):
        row = slice(i, i + 1)
        assert torch.equal(net(x[row], level[row])[0], logits[i])
        assert torch.equal(net.log_prob_gradient(x[row], level[row], label[row])[0], pull[i])


def test_the_guidance_is_the_gradient_of_the_log_probability() -> None:
    """Against differences; and under no_grad, as samplers call it."""
    net = small((8, 6)).double()
    x, level = torch.randn(2, 1, 8, 6).double(), torch.tensor([5, 300])
    label, way = torch.tensor([2, 0]), torch.randn(2, 1, 8, 6).double()

    def sure(x: Tensor) -> Tensor:
        return net.net(x, level - 1).log_softmax(1)[torch.arange(2), label]

    with torch.no_grad():
        pull = net.log_prob_gradient(x, level, label)
        slope = (sure(x + 1e-4 * way) - sure(x - 1e-4 * way)) / 2e-4
    torch.testing.assert_close((pull * way).flatten(1).sum(1), slope, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in net.parameters())


def test_the_loss_is_cross_entropy_of_what_was_disturbed() -> None:
    net = small((8, 6))
    x, label, rng = torch.randn(3, 1, 8, 6), torch.tensor([False, True, True]), Rng(["a", "b", "c"])
    level = 1 + rng.fork("level").integers(1000)
    noise = rng.fork("noise").normal((1, 8, 6))
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000).double(), 0)[level - 1]
    alpha_bar = alpha_bar.view(3, 1, 1, 1)
    x_l = (alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise).float()
    expected = cross_entropy(net.net(x_l, level - 1), label.long(), reduction="none")
    torch.testing.assert_close(net.loss(x, label, rng), expected, rtol=1e-4, atol=1e-4)


def test_it_begins_as_guided_diffusions() -> None:
    """Norms of eps 1e-5, and attention before the pooling that adds nothing."""
    net = build_encoder(
        (8, 8), 1, 2, (8, 8), res_blocks=1, attention=(False, True), head_channels=8
    )
    norms = [part.eps for part in net.modules() if isinstance(part, nn.GroupNorm)]
    assert norms and set(norms) == {1e-5}
    projections = {k: p for k, p in net.named_parameters() if ".out_proj." in k}
    assert projections and not any(p.any() for p in projections.values())


def test_it_learns_to_tell_labels_apart() -> None:
    class Example:
        def __init__(self, i: int) -> None:
            self.label = bool(i % 2)
            self.x = 0.1 * Rng([str(i)]).normal((1, 8, 8))[0] + self.label

    torch.manual_seed(0)
    data: list[Any] = [Example(i) for i in range(16)]
    net = build_encoder(
        (8, 8), 1, 2, (8, 8), res_blocks=1, attention=(False, False), head_channels=8
    )
    classifier = NoisyClassifier(net, build_schedule("linear", 1000))
    train_module(
        lambda x, label, rng: classifier.loss(x, label, rng, max_level=200),
        classifier, data, TrainingContext(), Training(60, 8, 3e-3, ema=None),
    )  # fmt: skip
    x = torch.stack([example.x for example in data])
    right = classifier(x, torch.ones(16, dtype=torch.int64)).argmax(1) == torch.arange(16) % 2
    assert right.float().mean() > 0.9
