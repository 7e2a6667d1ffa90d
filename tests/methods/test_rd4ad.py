"""RD4AD: cosine distances, loss and map against NumPy; what the student sees; a planted patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.networks.reverse_distillation import ReverseDistillation
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.rd4ad import RD4AD
from small import build_small

SPEC = Spec(1, (64, 64))


def rd4ad(**settings: Any) -> Any:
    more = {"size": 64, "depths": (1, 2), "blocks": 1} | settings
    return build_small(RD4AD, SPEC, **more).eval()


def image(name: str) -> Tensor:
    """(1, 64, 64) in [0, 1]: a ramp with a disc, and noise."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = ((y - 30) ** 2 + (x - 24) ** 2 < 150).float()
    return (0.3 + x / 200 + 0.3 * disc + 0.02 * Rng([name]).normal((1, 64, 64))[0]).clamp(0, 1)


class Rolled(nn.Module):
    """A student that is known: every map, its channels rolled by one."""

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [values.roll(1, 1) for values in maps]


def cosine(f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Of (C, h, w) at every position."""
    return (f * g).sum(0) / (np.linalg.norm(f, axis=0) * np.linalg.norm(g, axis=0))


@torch.no_grad()
def test_the_map_sums_the_enlarged_cosine_distances() -> None:
    method, x = rd4ad(blur=2.0), image("x")[None]
    method.student = Rolled()
    total = np.zeros((64, 64))
    for values in method.maps.extract(x):
        f = values[0].double().numpy()
        distance = torch.from_numpy(1 - cosine(f, np.roll(f, 1, 0)))[None, None]
        wide = nn.functional.interpolate(distance, size=(64, 64), mode="bilinear")
        total += wide[0, 0].numpy()
    expected = gaussian_filter(total, 2.0, mode="mirror")
    detection = method.detect(x, [0], Rng(["x"]))
    np.testing.assert_allclose(detection.map[0, 0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert detection.score.item() == pytest.approx(expected.max(), rel=1e-4)


def test_the_student_knows_no_more_than_the_code() -> None:
    """All of its maps change where the code does, and only there."""
    student: Any = ReverseDistillation((4, 6), 1).eval()
    maps = [torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)]
    one = student(maps)
    student.net.code.register_forward_hook(lambda net, args, code: torch.zeros_like(code))
    blank = student(maps)
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(one, blank, strict=True))
    other = student([torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)])
    assert all(torch.equal(a, b) for a, b in zip(blank, other, strict=True))


def test_a_planted_patch_is_where_it_looks_unusual() -> None:
    keys = [f"t{i}" for i in range(8)]
    train = [Sample(image(k), k, k, False, torch.zeros(64, 64) > 0) for k in keys]
    method = rd4ad(steps=30, batch=4, lr=0.005, blur=1.0)
    method.fit(train, [], TrainingContext())
    normal = image("x")
    ill = normal.clone()
    ill[:, 40:54, 40:54] = 1 - ill[:, 40:54, 40:54]
    detection = method.detect(torch.stack([normal, ill]), [0], Rng(["n", "i"]))
    gain = (detection.map[0, 1] - detection.map[0, 0]).detach()
    row, column = divmod(int(gain.argmax()), 64)
    assert 34 <= row < 60 and 34 <= column < 60


def test_layers_that_do_not_halve_are_refused() -> None:
    with pytest.raises(ValueError, match=r"halve the sides .* \[1, 3\] are at 1/4, 1/16"):
        rd4ad(depths=(1, 3))
