"""Codecs: the way there and back, what is in their state, what they learn, and their sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses.spectral_loss import JukeboxLoss
from torch import Tensor, nn

from adbench.engine.codecs.autoencoder import KL, VQ, Binary
from adbench.engine.codecs.codec import Codec, Features, Identity
from adbench.engine.codecs.quantization import BinaryQuantizer, Codebook
from adbench.engine.diffusion.denoiser import Mismatch
from adbench.engine.features.pretrained import FeaturesError
from adbench.engine.networks.discriminator import PatchDiscriminatorLoss, PerceptualLoss
from adbench.engine.profiling.cost import count_parameters
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from trainings import MemoryStateStore

SHAPES = [(2, 16), (1, 8, 12), (1, 8, 4, 8)]
FEW: dict[str, Any] = {"widths": (8, 16), "res_blocks": 1}


def kl(shape: tuple[int, ...] = (1, 8, 8), **more: Any) -> KL:
    torch.manual_seed(0)
    return KL(shape, latent_channels=3, **FEW, **more)


def vq(shape: tuple[int, ...] = (1, 8, 8), **more: Any) -> VQ:
    torch.manual_seed(0)
    return VQ(shape, latent_channels=4, codes=16, **FEW, **more)


def binary(shape: tuple[int, ...] = (1, 8, 8), **more: Any) -> Binary:
    torch.manual_seed(0)
    return Binary(shape, bits=5, size=8, **FEW, **more)


MAKERS: list[Callable[..., Codec]] = [Identity, kl, vq, binary]


class Row:
    label = False

    def __init__(self, i: int, shape: tuple[int, ...]) -> None:
        shade = (0.2 * Rng([f"row {i}"]).normal((shape[0],))[0] + 0.3).clamp(0, 0.7)
        slope = torch.linspace(0, 0.3, shape[-1])
        self.x = (shade.view(-1, *[1] * (len(shape) - 1)) + slope).expand(shape).contiguous()


def rows(count: int, shape: tuple[int, ...] = (1, 8, 8)) -> list[Row]:
    return [Row(i, shape) for i in range(count)]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back_for_any_number_of_axes_and_each_sample_by_itself(
    maker: Callable[..., Codec], shape: tuple[int, ...]
) -> None:
    codec = maker(shape).eval()
    codec.batch = 4
    x = torch.rand(6, *shape)
    z = codec.encode(x)
    back = codec.decode(z)
    assert z.shape == (6, *codec.latent) and back.shape == x.shape
    assert not z.requires_grad and not back.requires_grad
    for i in (0, 5):
        assert torch.equal(codec.encode(x[i : i + 1])[0], z[i])
        assert torch.equal(codec.decode(z[i : i + 1])[0], back[i])


@pytest.mark.parametrize("maker", [kl, vq])
def test_latents_have_unit_deviation_once_measured_and_decode_alike(
    maker: Callable[..., Codec],
) -> None:
    codec, data = maker().eval(), rows(20)
    x = torch.stack([row.x for row in data])
    before, image = codec.encode(x), codec.decode(codec.encode(x))
    codec.fit_scale(data, TrainingContext(batch=3))
    after = codec.encode(x)
    assert after.std(correction=0).item() == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(after, before / before.std(correction=0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(codec.decode(after), image, rtol=1e-3, atol=1e-4)
    codec.fit_scale(data, TrainingContext())
    torch.testing.assert_close(codec.encode(x), after, rtol=1e-4, atol=1e-5)  # not twice
    with pytest.raises(ValueError, match="split is empty"):
        codec.fit_scale([], TrainingContext())


@pytest.mark.parametrize("maker", MAKERS)
def test_all_of_it_is_in_the_state_and_another_range_is_refused(
    maker: Callable[..., Codec],
) -> None:
    codec, x = maker((1, 8, 8)).eval(), torch.rand(2, 1, 8, 8)
    codec.fit_scale(rows(6), TrainingContext())
    restored = TrainingContext().place(maker((1, 8, 8)).eval())
    assert isinstance(restored, Codec)
    for p in restored.parameters():
        nn.init.normal_(p)
    restored.load_state_dict(codec.state_dict())
    assert torch.equal(restored.encode(x), codec.encode(x))
    with pytest.raises(Mismatch, match="trained as"):
        maker((1, 8, 8), range=(-1.0, 1.0)).load_state_dict(codec.state_dict())


def test_a_kl_loss_is_error_and_divergence() -> None:
    """The divergence against torch's own; the draw from the sample's stream."""
    codec, x, rng = kl(kl=0.5), torch.rand(2, 1, 8, 8), Rng(["a", "b"])
    mean, deviation = codec.net.encode(x)
    bits_drawn = mean + deviation * rng.fork("latent").normal(mean.shape[1:])
    error = (codec.net.decode(bits_drawn) - x).abs().mean((1, 2, 3))
    normal = torch.distributions.Normal
    apart = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0))
    torch.testing.assert_close(codec.loss(x, rng), error + 0.5 * apart.sum((1, 2, 3)))


@pytest.mark.parametrize("maker", [kl, vq, binary])
def test_a_rows_loss_depends_on_no_other_and_on_its_stream_alone(
    maker: Callable[..., Codec],
) -> None:
    codec = maker(adversary={"width": 8, "layers": 1}, looks=0.1, features="effperc-random")
    x, rng = torch.rand(3, 1, 8, 8), Rng(["a", "b", "c"]).at(7)
    before = torch.get_rng_state()
    whole = codec.loss(x, rng)
    assert torch.equal(torch.get_rng_state(), before)
    one = codec.loss(x[1:2], rng.rows(torch.tensor([1])))
    torch.testing.assert_close(one[0], whole[1], rtol=1e-4, atol=1e-5)
    assert whole.shape == (3,)


@pytest.mark.parametrize("maker", [kl, vq, binary])
def test_it_learns_to_restore(maker: Callable[..., Codec]) -> None:
    codec, data = maker(), rows(16)
    x = torch.stack([row.x for row in data])

    def off() -> float:
        return (codec.decode(codec.encode(x)) - x).abs().mean().item()

    before = off()
    train_module(
        lambda x, _, rng: codec.loss(x, rng),
        codec,
        data,
        TrainingContext(),
        Training(25, 8, 1e-2, ema=None),
    )
    assert off() < before / 2


def test_a_perceptual_loss_alone_trains_a_codec_and_a_discriminator_learns_against_it() -> None:
    looks = PerceptualLoss((0.0, 1.0), features="effperc-random")
    x = torch.rand(2, 1, 16, 16)
    reconstruction = x.flip(2).clone().requires_grad_()
    looks(x, reconstruction).sum().backward()
    assert reconstruction.grad is not None and reconstruction.grad.abs().max() > 0
    assert torch.equal(looks(x, x), torch.zeros(2))
    assert not list(looks.parameters()) and not looks.state_dict()
    volume = torch.rand(2, 1, 8, 8, 8)
    assert looks(volume, volume.flip(2)).shape == (2,) and (looks(volume, volume) == 0).all()
    with pytest.raises(ValueError, match="not of signals"):
        looks(torch.rand(2, 1, 8), torch.rand(2, 1, 8))


@pytest.mark.parametrize("kind", ["least squares", "hinge"])
def test_neither_side_of_the_adversarial_loss_changes_the_others_weights(kind: Any) -> None:
    """Against the two losses written out, each with its own gradient."""
    torch.manual_seed(0)
    adversary = PatchDiscriminatorLoss(2, 1, weight=0.3, starts=5, width=8, layers=1, kind=kind)
    for p in adversary.parameters():
        nn.init.normal_(p, std=0.3)
    x, reconstruction = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8, requires_grad=True)
    adversary(x, reconstruction, torch.tensor([5, 4])).sum().backward()
    pulled, discriminator_gradients = reconstruction.grad, [p.grad for p in adversary.parameters()]
    reconstruction.grad = None
    adversary.zero_grad()

    def says(image: Tensor) -> Tensor:
        logits = adversary.net(image)[-1].flatten(1)
        return logits if kind == "hinge" else logits.relu() - 0.05 * (-logits).relu()

    false = says(reconstruction)
    fooled = -false if kind == "hinge" else (false - 1) ** 2
    (0.3 * fooled[0].mean()).backward()
    assert pulled is not None and reconstruction.grad is not None
    torch.testing.assert_close(pulled, reconstruction.grad)
    assert (pulled[1] == 0).all(), "before its start it is not heard"
    adversary.zero_grad()
    if kind == "hinge":
        each = (1 - says(x)).relu() + (1 + says(reconstruction.detach())).relu()
    else:
        each = (says(x) - 1) ** 2 + says(reconstruction.detach()) ** 2
    (each.mean(1).sum() / 2).backward()
    for p, grad in zip(adversary.parameters(), discriminator_gradients, strict=True):
        torch.testing.assert_close(p.grad, grad)


def test_a_spectral_error_is_monais_jukebox_loss() -> None:
    x, reconstruction = torch.rand(2, 2, 8, 8), torch.rand(2, 2, 8, 8)
    codec = VQ((2, 8, 8), latent_channels=2, widths=(4,), res_blocks=1, codes=4, spectrum=3.0)
    ours = codec.reconstruction_error(x, reconstruction, Rng(["a", "b"])).mean()
    theirs = (reconstruction - x).abs().mean() + 3 * JukeboxLoss(2)(reconstruction, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    reconstruction = x.clone().requires_grad_()
    codec.reconstruction_error(x, reconstruction, Rng(["a", "b"])).sum().backward()
    assert reconstruction.grad is not None and reconstruction.grad.isfinite().all()


def test_a_discriminators_size_is_the_papers() -> None:
    """Group norms have as many weights as the paper's batch norms."""
    for channels, count in ((4, 2_766_657), (1, 2_763_585)):
        with torch.device("meta"):
            assert count_parameters(PatchDiscriminatorLoss(2, channels)) == count


def test_the_papers_autoencoders_have_their_parameters() -> None:
    """Counted in the authors' code, less what that makes and never uses: a head of 9,380 (9,281)
    and, in blocks that change no width, convolutions of one place (64,128 in the encoder and
    79,584 in the decoder, counted by the widths)."""
    with torch.device("meta"):
        assert count_parameters(KL((1, 64, 64)).net) == 8_058_792
        for channels, count, head in ((4, 4_256_808, 9_380), (1, 4_254_978, 9_281)):
            codec = Binary((channels, 256, 256))
            assert count_parameters(codec.net) == count - head - 64_128 - 79_584
            assert codec.latent == (128, 32, 32)
        assert count_parameters(codec.net["bits"]) == 65_664
    square = {w: w * w + w for w in (32, 64, 128)}  # a convolution of one place, w channels
    assert 2 * square[32] + 3 * square[64] + 3 * square[128] == 64_128
    assert square[32] + 3 * square[64] + 4 * square[128] == 79_584


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(0, 99))
def test_a_codebook_finds_the_nearest(count: int, seed: int) -> None:
    book = Codebook(7, 3)
    z = Rng(["z"], seed).normal((count, 3, 4, 5))[0]
    apart = torch.cdist(z.movedim(1, -1).reshape(-1, 3).double(), book.codes.double())
    assert torch.equal(book.nearest(z).flatten(), apart.argmin(1))
    assert torch.equal(book.quantize(z).movedim(1, -1).reshape(-1, 3), book.codes[apart.argmin(1)])


def steps(book: Codebook, micro: int, count: int = 4, *, again: bool = False) -> Tensor:
    """Codes after some steps of eight rows, `micro` at a time; one of them is begun twice."""
    streams = Rng([f"fit/{i}" for i in range(8)])
    for k in range(count):
        rng = streams.at(k)
        z = rng.fork("z").normal((4, 6)) + 1
        if again and k == 2:
            book.quantize_and_count(z[:3], rng.rows(torch.arange(3)))
        for i in range(0, 8, micro):
            index = torch.arange(i, min(i + micro, 8))
            book.quantize_and_count(z[index], rng.rows(index))
    book.quantize_and_count(torch.zeros(8, 4, 6), streams.at(count))
    return book.codes.clone()


def test_a_codebook_follows_as_monais_does_however_many_rows_at_a_time() -> None:
    from monai.networks.layers.vector_quantizer import EMAQuantizer

    torch.manual_seed(0)
    start = torch.randn(7, 4)

    def fresh() -> Codebook:
        book = Codebook(7, 4, decay=0.8)
        book.codes.copy_(start)
        book.sums.copy_(start)
        return book

    theirs = EMAQuantizer(2, 7, 4, decay=0.8).train()
    theirs.embedding.weight.data.copy_(start)
    theirs.ema_w.copy_(start)
    for k in range(4):
        z = Rng([f"fit/{i}" for i in range(8)]).at(k).fork("z").normal((4, 6)) + 1
        theirs(z[:, :, None])
    codes = steps(fresh(), 8)
    torch.testing.assert_close(codes, theirs.embedding.weight)
    torch.testing.assert_close(steps(fresh(), 3), codes)
    torch.testing.assert_close(steps(fresh(), 2, again=True), codes)


def test_a_training_that_was_interrupted_ends_with_the_same_codes() -> None:
    plan, data = Training(6, 4, 1e-2, ema=0.5), rows(10)

    def trained(run: TrainingContext, codec: VQ) -> dict[str, Tensor]:
        train_module(lambda x, _, rng: codec.loss(x, rng), codec, data, run, plan)
        return codec.state_dict()

    undisturbed = trained(TrainingContext(), vq())
    stops, memory = iter([False] * 3 + [True]), MemoryStateStore()
    with pytest.raises(Interrupted):
        trained(TrainingContext(state_store=memory, stop=lambda: next(stops)), vq())
    resumed = trained(TrainingContext(state_store=memory), vq())
    assert all(torch.equal(resumed[key], value) for key, value in undisturbed.items())


def test_bits_pass_their_gradient_straight_through() -> None:
    torch.manual_seed(0)
    bits = BinaryQuantizer(2, 6, 5)
    chance = torch.rand(2, 5, 3, 3, requires_grad=True)
    bits_drawn = bits.sample(chance, Rng(["a", "b"]))
    assert set(bits_drawn.detach().unique().tolist()) <= {0.0, 1.0}
    reconstruction = bits.embed(bits_drawn)
    expected = torch.stack(
        [bits_drawn[:, n, None] * bits.vectors[n, :, None, None] for n in range(5)]
    )
    torch.testing.assert_close(reconstruction, expected.sum(0))
    reconstruction.sum().backward()
    assert chance.grad is not None
    torch.testing.assert_close(chance.grad, bits.vectors.sum(1)[:, None, None].expand(2, 5, 3, 3))
    many = bits.sample(torch.full((4, 5, 50, 50), 0.3), Rng(list("abcd")))
    assert many.mean().item() == pytest.approx(0.3, abs=0.01)


def test_binary_codes_are_bits_certain_or_drawn_by_each_samples_stream() -> None:
    codec, x, rng = binary().eval(), torch.rand(3, 1, 8, 8), Rng(["a", "b", "c"])
    z, bits_drawn = codec.encode(x), codec.sample_bits(x, rng)
    for bits in (z, bits_drawn):
        assert set(bits.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(codec.sample_bits(x[2:], Rng(["c"]))[0], bits_drawn[2])
    assert torch.equal(z, (codec.bit_probabilities(x) > 0.5).float())


def test_what_is_quantised_can_be_what_is_diffused_or_not() -> None:
    quantised, continuous = vq().eval(), vq(kind="continuous").eval()
    x = torch.rand(2, 1, 8, 8)
    a, b = quantised.encode(x), continuous.encode(x)
    assert torch.equal(continuous.codebook.quantize(b), a) and not torch.equal(a, b)
    assert torch.equal(quantised.decode(a), continuous.decode(b))
    with pytest.raises(Mismatch):
        continuous.load_state_dict(quantised.state_dict())


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="divide by 4, not \\(8, 6\\)"):
        vq((1, 8, 6))


def test_features_are_what_the_network_sees_channel_by_channel_alike() -> None:
    codec = Features((1, 64, 48), features="effperc-random")
    assert codec.latent == (176, 8, 6) and not list(codec.parameters())
    data: list[Any] = rows(6, (1, 64, 48))
    for i, row in enumerate(data):
        row.x = row.x + 0.1 * Rng([str(i)]).uniform((1, 64, 48))[0].float()
    codec.fit_scale(data, TrainingContext(batch=4))
    z = codec.encode(torch.stack([row.x for row in data]))
    across = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(across.mean(1), torch.zeros(176), atol=1e-3, rtol=0)
    heard = across.std(1) > 0.5  # an untrained network has channels that never speak
    assert heard.sum() > 100
    torch.testing.assert_close(
        across.std(1, correction=0)[heard], torch.ones(int(heard.sum())), atol=0.01, rtol=0
    )
    assert Features((2, 32, 32), features="effperc-random").latent == (352, 4, 4)
    with pytest.raises(NotImplementedError, match="cannot be decoded"):
        codec.decode(z)
    with pytest.raises(ValueError, match="two axes"):
        Features((1, 32))
    with pytest.raises(FeaturesError, match="unknown features"):
        Features((1, 32, 32), features="resnet")


def test_a_codec_is_measured_with_fewer_rows_where_memory_runs_out() -> None:
    """To the same scale, but for the last digits."""

    class Tight(KL):
        def encode(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError
            return super().encode(x)

    wide, tight = kl(), Tight((1, 8, 8), latent_channels=3, **FEW)
    tight.load_state_dict(kl().state_dict() | {"_extra_state": tight.get_extra_state()})
    for codec in (wide, tight):
        codec.fit_scale(rows(9), TrainingContext(batch=8))
    assert (wide.batch, tight.batch) == (8, 2)
    torch.testing.assert_close(wide.scale, tight.scale)
