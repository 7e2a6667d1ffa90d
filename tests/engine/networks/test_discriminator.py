"""An adversary's own pace and size."""

from __future__ import annotations

import pytest
import torch

from adbench.engine.networks.discriminator import PatchDiscriminatorLoss, discriminator_layers


def test_an_adversary_may_learn_faster() -> None:
    """A step of Adam at a rate is that at so many times the learning rate."""
    x, reconstruction, at = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16), torch.zeros(2)
    gradients = []
    for rate in (1.0, 4.0):
        torch.manual_seed(0)
        one = PatchDiscriminatorLoss(2, 1, width=8, layers=1, rate=rate)
        steps = torch.optim.Adam(one.parameters(), 4e-3 / rate, eps=1e-20)
        for _ in range(3):
            steps.zero_grad()
            loss = one(x, reconstruction, at)
            loss.sum().backward()
            steps.step()
        gradients.append(one(x, reconstruction, at).detach())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_an_adversary_of_small_samples_has_fewer_layers() -> None:
    assert [discriminator_layers((64, n)) for n in (6, 11, 12, 23, 24, 300)] == [1, 1, 2, 2, 3, 3]
    for side in (6, 12, 24):
        one = PatchDiscriminatorLoss(2, 1, width=8, layers=discriminator_layers((side, side)))
        assert one(torch.rand(1, 1, side, side), torch.rand(1, 1, side, side), torch.zeros(1)) > 0
    with pytest.raises(ValueError, match="sides of at least 6"):
        discriminator_layers((64, 5))
