"""pDDPM's own: patches, their coverage, stitching."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import cosine_schedule
from adbench.engine.noise.noise import Simplex
from adbench.engine.profiling.cost import count_parameters
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.cddpm import CDDPM
from adbench.methods.mddpm import MDDPM
from adbench.methods.pddpm import PDDPM, tile_masks
from known import ConstantX0
from small import samples, small_method

SPEC = Spec(1, (16, 16))


class Echo(nn.Module):
    """Says that x_0 is what it is shown."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("cls", "count"), [(PDDPM, 37_513_857), (MDDPM, 37_513_857), (CDDPM, 44_068_481)]
)
def test_the_network_is_the_authors(cls: type[PDDPM | MDDPM | CDDPM], count: int) -> None:
    """Counted in their code, cDDPM's too: attention in the middle alone, time scales and shifts."""
    with torch.device("meta"):
        built = cls(Spec(1, (96, 96)))
    net = built.denoiser.net
    assert count_parameters(net) == count
    assert sum(isinstance(part, DiffusionUNetResnetBlock) for part in net.modules()) == 27
    heads = [(p.num_heads, p.dim_head) for p in net.modules() if isinstance(p, SABlock)]
    assert heads == [(4, 64)]
    assert {p.eps for p in net.modules() if isinstance(p, nn.GroupNorm)} == {1e-5}
    assert built.noise == Simplex(6, 0.8, 64.0, generator="2d") and built.clip is None


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(PDDPM, Spec(1, (96, 96)))
    assert len(built.tiles) == 4 and built.plan.steps == 19_200 and built.plan.batch == 32
    assert built.plan.ema is None and built.plan.clip is None and built.published == 500
    assert built.denoiser.prediction_type == "clean" and built.denoiser.schedule.name.startswith(
        "cosine"
    )


def test_a_grid_of_96_by_48_covers_every_position_once() -> None:
    tiles = tile_masks((96, 96), 48, 48)
    assert len(tiles) == 4 and (tiles.sum(0) == 1).all()


@given(
    st.lists(st.integers(3, 12), min_size=1, max_size=3),
    st.integers(2, 6).flatmap(lambda p: st.tuples(st.just(p), st.integers(1, p))),
)
def test_tiles_cover_everything_whatever_divides(shape, sides) -> None:
    patch, stride = sides
    tiles = tile_masks(shape, patch, stride)
    assert (tiles.sum(0) >= 1).all() and tiles.shape[2:] == tuple(shape)


def test_a_stride_beyond_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.\.8 \(the patch\), not 9"):
        tile_masks((16, 16), 8, 9)


@torch.no_grad()
@pytest.mark.parametrize("more", [{}, {"stride": 4}, {"stride": 4, "aggregate": "mean"}])
def test_with_an_oracle_the_stitched_image_is_the_healthy_one(more) -> None:
    built = small_method("pddpm", SPEC, **more).eval()
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built.denoiser = Denoiser(
        ConstantX0(built.canvas.forward(healthy)), cosine_schedule(), prediction_type="clean"
    ).eval()
    results = built.detect(healthy, [200, 500], Rng(["a"]))
    assert results.map is not None and results.map.abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("stride", [8, 5, 3])
def test_the_mean_of_a_constant_is_the_constant(stride: int) -> None:
    """The authors' average divides inside the loop and gives .1875 to 1 instead of 1."""
    built = small_method("pddpm", SPEC, stride=stride, aggregate="mean").eval()
    built.denoiser = Denoiser(
        ConstantX0(torch.ones(1, 1, 16, 16)), cosine_schedule(), prediction_type="clean"
    ).eval()
    results = built.detect(torch.zeros(1, 1, 16, 16), [500], Rng(["a"]))
    assert results.reconstruction is not None
    torch.testing.assert_close(results.reconstruction, torch.ones(1, 1, 1, 16, 16))


@torch.no_grad()
def test_an_identity_network_adds_the_noise_of_every_position() -> None:
    """x' - x = (sqrt(kept) - 1) x_0 / 2 + sqrt(1 - kept) n / 2 in every cell, unclamped, n being
    one field for all cells; x_0 = 2 x - 1."""
    x, rng, level = samples((16, 16), 1, 1)[0].x[None], Rng(["a"]), torch.tensor([500])
    reconstructed = {}
    for clip_clean in (False, True):
        built = small_method("pddpm", SPEC, clip_clean=clip_clean).eval()
        built.denoiser.net = Echo()
        reconstructed[clip_clean] = built.detect(x, [500], rng).reconstruction[0]
    n = built.noise(rng.fork("repeat", 0).fork("start"), (1, 16, 16), level)
    stored = cosine_schedule().alpha_bar[500].float()
    added = (stored.sqrt() - 1) * (2 * x - 1) / 2 + (1 - stored).sqrt() * n / 2
    torch.testing.assert_close(reconstructed[False] - x, added, rtol=0, atol=1e-6)
    torch.testing.assert_close(reconstructed[True], (x + added).clamp(0, 1), rtol=0, atol=1e-6)
    assert not torch.equal(reconstructed[True], reconstructed[False])


@torch.no_grad()
def test_evaluations_are_patches_times_repeats() -> None:
    built = small_method("pddpm", SPEC, repeats=3).eval()
    built.detect(torch.zeros(2, 1, 16, 16), [200, 500], Rng(["a", "b"]))
    assert built.denoiser.evaluations == 2 * 2 * 4 * 3


def test_random_boxes_are_whole_overhanging_ones_cover_alike_and_clipped_ones_do_neither() -> None:
    """Ratio of coverage above .9; theirs reaches the low corner almost never."""
    streams = Rng([str(i) for i in range(40_000)])
    cover, whole = {}, {}
    for boxes in ("random", "overhanging", "clipped"):
        drawn = (
            small_method("pddpm", SPEC, boxes=boxes)._training_boxes(streams.fork(boxes)).float()
        )
        cover[boxes], whole[boxes] = drawn.mean((0, 1)), (drawn.flatten(1).sum(1) == 64).all()
    assert [boxes for boxes in whole if whole[boxes]] == ["random"]
    assert cover["random"][0, 0].item() == pytest.approx(1 / 81, rel=0.15)
    assert cover["overhanging"].min() / cover["overhanging"].max() > 0.9
    assert cover["clipped"][0, 0] < 0.05 * cover["clipped"].max()


def test_grid_boxes_are_the_cells_each_as_often() -> None:
    built = small_method("pddpm", SPEC)
    boxes = built._training_boxes(Rng([str(i) for i in range(4000)]))
    assert (boxes.flatten(1).sum(1) == 64).all()
    assert (boxes.float().mean((0, 1)) - 0.25).abs().max() < 0.03


def test_it_overfits_a_few_blobs() -> None:
    """What is left in patches falls under a quarter of what predicting the mean leaves."""
    data = samples((16, 16), 4, 1)
    built = small_method(
        "pddpm", SPEC, steps=300, batch=8, lr=6e-3, decay="cosine", noise="gaussian"
    )
    built.fit(data, [], TrainingContext())
    x = built.canvas.forward(torch.stack([s.x for s in data]))
    with torch.no_grad():
        results = built.detect(torch.stack([s.x for s in data]), [300], Rng(["a", "b", "c", "d"]))
    assert results.map is not None
    mean = (x - x.mean(0)).abs().mean() / 2  # in [0, 1], as the map is
    assert results.map.mean() < mean / 4
