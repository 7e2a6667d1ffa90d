"""Autoencoders for latent diffusion: KL-regularised, vector-quantised (of two designs), binary.

The networks are MONAI's, for one to three axes; MONAI is imported when one is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..networks.discriminator import PatchDiscriminatorLoss, PerceptualLoss, discriminator_layers
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.rng import Rng
from .codec import Codec
from .quantization import BinaryQuantizer, Codebook


class Autoencoder(Codec):
    """A codec that is trained by its reconstruction error: mean absolute error, and optionally a
    perceptual loss, a spectral loss and a patch discriminator.

    shape, latent, range: as in `Codec`
    looks: weight of the perceptual loss, 0 for none
    features: the network of the perceptual loss
    spectrum: weight of the squared error of Fourier amplitudes (Dhariwal et al. 2020, Jukebox,
        arXiv 2005.00341, section 3.3; over channels and all axes, as MONAI has it)
    adversary: arguments of `PatchDiscriminatorLoss`, None for none
    network_range: the range of x that the network sees, where it is not `range`
    training_info: as in `Codec`

    >>> import torch
    >>> from adbench.engine.codecs.autoencoder import Autoencoder
    >>> from adbench.engine.runtime.rng import Rng
    >>> codec, x = Autoencoder((1, 4), (1, 2), (0.0, 1.0)), torch.zeros(2, 1, 4)
    >>> codec.reconstruction_error(x, x + 0.5, Rng(["a", "b"]))
    tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: Sequence[int],
        range: tuple[float, float],
        *,
        looks: float = 0.0,
        features: str = "effperc",
        spectrum: float = 0.0,
        adversary: Mapping[str, Any] | None = None,
        network_range: tuple[float, float] | None = None,
        **training_info: object,
    ) -> None:
        if network_range is not None:
            training_info["network_range"] = network_range
        super().__init__(shape, latent, range, **training_info)
        self.network_range = network_range
        self.weight, self.spectrum = looks, spectrum
        self.looks = PerceptualLoss(range, features=features) if looks else None
        if self.looks is not None:
            self.looks.perceptual.check_sides(shape[1:])
        ndim, channels = len(shape) - 1, shape[0]
        self.adversary = None
        if adversary is not None:
            defaults = (
                {"layers": discriminator_layers(shape[1:])} if "layers" not in adversary else {}
            )
            self.adversary = PatchDiscriminatorLoss(ndim, channels, **defaults, **adversary)

    def to_network(self, x: Tensor) -> Tensor:
        """x in the range that the network sees."""
        return x if self.network_range is None else _rescale(x, self.range, self.network_range)

    def from_network(self, x: Tensor) -> Tensor:
        """What the network computed, in the codec's range."""
        return x if self.network_range is None else _rescale(x, self.network_range, self.range)

    def reconstruction_error(self, x: Tensor, reconstruction: Tensor, rng: Rng) -> Tensor:
        """The error of a reconstruction (N, C, *S) of x, (N,)."""
        total = (reconstruction - x).float().abs().flatten(1).mean(1)
        if self.looks is not None:
            total = total + self.weight * self.looks(x, reconstruction)
        if self.spectrum:
            difference = _fourier_amplitudes(reconstruction) - _fourier_amplitudes(x)
            total = total + self.spectrum * difference.square().flatten(1).mean(1)
        if self.adversary is not None:
            total = total + self.adversary(x, reconstruction, rng.step)
        return total


class KL(Autoencoder):
    """The KL-regularised autoencoder of latent diffusion (Rombach et al. 2022).

    z is the mean of the encoder's distribution, never a draw. In training one is drawn, and the
    divergence from a standard normal distribution, summed over the latent, is added to the loss.

    shape, range: as in `Codec`
    latent_channels: of z
    widths: channels at each resolution, halved in between
    res_blocks: at each resolution
    decoder_res_blocks: at each resolution of the decoder, as many if None
    attention: at which resolutions
    middle: attention at the encoder's end and the decoder's beginning
    activation: an activation before the last convolution of encoder and decoder, as Rombach et al.
        and diffusers have it; MONAI has none
    groups: of the norms, 32 or the most that divide every width if None
    kl: weight of the divergence
    loss_options: of `Autoencoder`

    >>> import torch
    >>> from adbench.engine.codecs.autoencoder import KL
    >>> codec = KL((1, 8, 8), latent_channels=2, widths=(4, 8), res_blocks=1)
    >>> z = codec.encode(torch.zeros(3, 1, 8, 8))
    >>> z.shape, codec.decode(z).shape
    (torch.Size([3, 2, 4, 4]), torch.Size([3, 1, 8, 8]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent_channels: int = 3,
        widths: Sequence[int] = (128, 128, 256),
        res_blocks: int = 2,
        attention: Sequence[bool] = (),
        decoder_res_blocks: int | None = None,
        middle: bool = False,
        activation: bool = False,
        groups: int | None = None,
        kl: float = 1e-6,
        range: tuple[float, float] = (0.0, 1.0),
        **loss_options: Any,
    ) -> None:
        from monai.networks.nets.autoencoderkl import AutoencoderKL, Decoder

        super().__init__(
            shape, _latent_shape(shape, latent_channels, len(widths) - 1), range, **loss_options
        )
        self.activation = activation
        self.kl, self.widths, self.res_blocks, self.middle = kl, tuple(widths), res_blocks, middle
        self.attention = tuple(attention) or (False,) * len(widths)
        self.decoder_res_blocks = decoder_res_blocks or res_blocks
        self.groups = groups or math.gcd(32, *widths)
        self.net = AutoencoderKL(
            spatial_dims=len(shape) - 1,
            in_channels=shape[0],
            out_channels=shape[0],
            channels=tuple(widths),
            num_res_blocks=res_blocks,
            attention_levels=self.attention,
            latent_channels=latent_channels,
            norm_num_groups=self.groups,
            with_encoder_nonlocal_attn=middle,
            with_decoder_nonlocal_attn=middle,
        )
        if self.decoder_res_blocks != res_blocks:
            self.net.decoder = Decoder(
                spatial_dims=len(shape) - 1, in_channels=latent_channels, out_channels=shape[0],
                channels=self.widths, num_res_blocks=[self.decoder_res_blocks] * len(widths),
                norm_num_groups=self.groups, norm_eps=1e-6, attention_levels=self.attention,
                with_nonlocal_attn=middle,
            )  # fmt: skip
        if activation:
            _activate_last_norm(self.net.encoder, self.net.decoder)
        _fuse_attention(self.net)

    def encode_unscaled(self, x: Tensor) -> Tensor:
        return self._distribution(x)[0]

    def decode_unscaled(self, code: Tensor) -> Tensor:
        return self.from_network(self.call_net(lambda net, z: net.decode(z), code))

    def loss(self, x: Tensor, rng: Rng) -> Tensor:
        mean, deviation = self._distribution(x)
        drawn = mean + deviation * rng.fork("latent").normal(mean.shape[1:])
        variance = deviation.square()
        divergence = (mean.square() + variance - variance.log() - 1).flatten(1).sum(1) / 2
        error = self.reconstruction_error(x, self.decode_unscaled(drawn), rng)
        return error + self.kl * divergence

    def _distribution(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the deviation of the encoder's distribution, (N, C', *S') each."""
        return self.call_net(lambda net, rows: net.encode(rows), self.to_network(x))


class VQ(Autoencoder):
    """The vector-quantised autoencoder (van den Oord et al. 2017; Tudosiu et al. 2022).

    Its codes follow running means, see `Codebook`.

    shape, range: as in `Codec`
    latent_channels: size of a code
    widths: channels after each halving; kernel 4
    res_blocks: after each halving
    res_width: their inner channels, as many as outside if None
    codes: how many
    decay: of the codes' means
    commitment: weight of the distance of an encoding from its code
    kind: whether z is quantised already; decoding quantises either kind
    loss_options: of `Autoencoder`

    >>> import torch
    >>> from adbench.engine.codecs.autoencoder import VQ
    >>> codec = VQ((1, 8, 8), latent_channels=2, widths=(4, 8), res_blocks=1, codes=16)
    >>> z = codec.encode(torch.zeros(3, 1, 8, 8))
    >>> z.shape, codec.codebook.nearest(z).shape
    (torch.Size([3, 2, 2, 2]), torch.Size([3, 2, 2]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent_channels: int = 64,
        widths: Sequence[int] = (128, 128, 256),
        res_blocks: int = 3,
        res_width: int | Sequence[int] | None = None,
        codes: int = 256,
        decay: float = 0.99,
        commitment: float = 0.25,
        kind: Literal["quantised", "continuous"] = "quantised",
        range: tuple[float, float] = (0.0, 1.0),
        **loss_options: Any,
    ) -> None:
        from monai.networks.nets.vqvae import Decoder, Encoder

        latent = _latent_shape(shape, latent_channels, len(widths))
        super().__init__(shape, latent, range, kind=kind, **loss_options)
        self.quantizes_output, self.commitment = kind == "quantised", commitment
        inner = [res_width] * len(widths) if isinstance(res_width, int) else res_width or widths
        same = {"spatial_dims": len(shape) - 1, "channels": tuple(widths), "dropout": 0.0,
                "act": "RELU", "num_res_layers": res_blocks,
                "num_res_channels": tuple(inner)}  # fmt: skip
        down, up = [(2, 4, 1, 1)] * len(widths), [(2, 4, 1, 1, 0)] * len(widths)
        self.net = nn.ModuleDict({
            "encoder": Encoder(in_channels=shape[0], out_channels=latent_channels,
                downsample_parameters=down, **same),
            "decoder": Decoder(in_channels=latent_channels, out_channels=shape[0],
                upsample_parameters=up, output_act=None, **same),
        })  # fmt: skip
        self.codebook = Codebook(codes, latent_channels, decay=decay)

    def encode_unscaled(self, x: Tensor) -> Tensor:
        z = self.encode_continuous(x)
        return self.codebook.quantize(z) if self.quantizes_output else z

    def decode_unscaled(self, code: Tensor) -> Tensor:
        return self._decode(self.codebook.quantize(code))

    def loss(self, x: Tensor, rng: Rng) -> Tensor:
        z, distance = self.codebook.quantize_and_count(self.encode_continuous(x), rng)
        return self.reconstruction_error(x, self._decode(z), rng) + self.commitment * distance

    def encode_continuous(self, x: Tensor) -> Tensor:
        """The encoding of (N, C, *S) before it is quantised, (N, C', *S'); in full batches only."""
        return self.call_net(lambda net, rows: net["encoder"](rows), self.to_network(x))

    def _decode(self, z: Tensor) -> Tensor:
        return self.from_network(self.call_net(lambda net, rows: net["decoder"](rows), z))


class VQGAN(Autoencoder):
    """The vector-quantised autoencoder of Esser et al. 2021, arXiv 2012.09841: `KL`'s encoder and
    decoder, with their last activation, around a codebook. diffusers has it as VQModel.

    Its codes follow running means, see `Codebook`.

    shape, range: as in `Codec`
    latent_channels: size of a code
    hidden_channels: of the encoder's output, `latent_channels` if None
    widths, res_blocks, decoder_res_blocks, attention, middle, groups: as in `KL`
    codes, decay, commitment, kind: as in `VQ`
    loss_options: of `Autoencoder`

    >>> import torch
    >>> from adbench.engine.codecs.autoencoder import VQGAN
    >>> codec = VQGAN((1, 8, 8), latent_channels=2, widths=(4, 8), res_blocks=1, codes=16)
    >>> z = codec.encode(torch.zeros(3, 1, 8, 8))
    >>> z.shape, codec.codebook.nearest(z).shape
    (torch.Size([3, 2, 4, 4]), torch.Size([3, 4, 4]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent_channels: int = 3,
        hidden_channels: int | None = None,
        widths: Sequence[int] = (128, 128, 256),
        res_blocks: int = 2,
        decoder_res_blocks: int | None = None,
        attention: Sequence[bool] = (),
        middle: bool = True,
        groups: int | None = None,
        codes: int = 256,
        decay: float = 0.99,
        commitment: float = 0.25,
        kind: Literal["quantised", "continuous"] = "quantised",
        range: tuple[float, float] = (0.0, 1.0),
        **loss_options: Any,
    ) -> None:
        from monai.networks.nets.autoencoderkl import Decoder, Encoder

        latent = _latent_shape(shape, latent_channels, len(widths) - 1)
        super().__init__(shape, latent, range, kind=kind, **loss_options)
        self.quantizes_output, self.commitment = kind == "quantised", commitment
        self.widths, self.res_blocks, self.middle = tuple(widths), res_blocks, middle
        self.attention = tuple(attention) or (False,) * len(widths)
        self.decoder_res_blocks = decoder_res_blocks or res_blocks
        self.groups = groups or math.gcd(32, *widths)
        ndim, hidden = len(shape) - 1, hidden_channels or latent_channels
        same = {"spatial_dims": ndim, "channels": self.widths, "norm_num_groups": self.groups,
            "norm_eps": 1e-6, "attention_levels": self.attention,
            "with_nonlocal_attn": middle}  # fmt: skip
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
        self.net = nn.ModuleDict({
            "encoder": Encoder(in_channels=shape[0], out_channels=hidden,
                num_res_blocks=[res_blocks] * len(widths), **same),
            "quant": conv(hidden, latent_channels, 1),
            "post": conv(latent_channels, hidden, 1),
            "decoder": Decoder(in_channels=hidden, out_channels=shape[0],
                num_res_blocks=[self.decoder_res_blocks] * len(widths), **same),
        })  # fmt: skip
        self.codebook = Codebook(codes, latent_channels, decay=decay)
        _activate_last_norm(self.net["encoder"], self.net["decoder"])
        _fuse_attention(self.net)

    def encode_unscaled(self, x: Tensor) -> Tensor:
        z = self.encode_continuous(x)
        return self.codebook.quantize(z) if self.quantizes_output else z

    def encode_continuous(self, x: Tensor) -> Tensor:
        """The encoding of (N, C, *S) before it is quantised, (N, C', *S'); in full batches only."""
        rows = self.to_network(x)
        return self.call_net(lambda net, rows: net["quant"](net["encoder"](rows)), rows)

    def decode_unscaled(self, code: Tensor) -> Tensor:
        return self._decode_quantised(self.codebook.quantize(code))

    def loss(self, x: Tensor, rng: Rng) -> Tensor:
        z, distance = self.codebook.quantize_and_count(self.encode_continuous(x), rng)
        error = self.reconstruction_error(x, self._decode_quantised(z), rng)
        return error + self.commitment * distance

    def _decode_quantised(self, code: Tensor) -> Tensor:
        decoded = self.call_net(lambda net, rows: net["decoder"](net["post"](rows)), code)
        return self.from_network(decoded)


class Binary(Autoencoder):
    """The binary autoencoder of Wolleb et al., MICCAI 2024 (after Wang et al. 2023): z is bits.

    A bit is 1 where that is the more likely value; in training, and by `sample_bits`, it is drawn.

    shape, range: as in `Codec`
    bits: per position
    size: of the vector of each bit
    widths, res_blocks, groups: as in `KL`
    loss_options: of `Autoencoder`

    >>> import torch
    >>> from adbench.engine.codecs.autoencoder import Binary
    >>> codec = Binary((1, 8, 8), bits=3, size=4, widths=(4, 8), res_blocks=1)
    >>> z = codec.encode(torch.zeros(1, 1, 8, 8))
    >>> z.shape, set(z.unique().tolist()) <= {0.0, 1.0}
    (torch.Size([1, 3, 4, 4]), True)
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        bits: int = 128,
        size: int = 256,
        widths: Sequence[int] = (32, 64, 64, 128),
        res_blocks: int = 2,
        groups: int | None = None,
        range: tuple[float, float] = (0.0, 1.0),
        **loss_options: Any,
    ) -> None:
        from monai.networks.nets.autoencoderkl import Decoder, Encoder

        super().__init__(shape, _latent_shape(shape, bits, len(widths) - 1), range, **loss_options)
        ndim, channels = len(shape) - 1, shape[0]
        groups = groups or math.gcd(32, *widths)
        same = {"spatial_dims": ndim, "channels": tuple(widths), "norm_num_groups": groups,
                "num_res_blocks": [res_blocks] * len(widths), "norm_eps": 1e-6,
                "attention_levels": [False] * len(widths)}  # fmt: skip
        self.net = nn.ModuleDict({
            "encoder": Encoder(in_channels=channels, out_channels=size, **same),
            "bits": BinaryQuantizer(ndim, size, bits),
            "norm": nn.GroupNorm(math.gcd(32, size), size, eps=1e-6),
            "decoder": Decoder(in_channels=size, out_channels=channels, **same),
        })  # fmt: skip

    def bit_probabilities(self, x: Tensor) -> Tensor:
        """The probability that each bit of z is 1, (N, bits, *S')."""
        return self.call_net(_bit_probabilities, self.to_network(x))

    def encode_unscaled(self, x: Tensor) -> Tensor:
        return (self.bit_probabilities(x) > 0.5).to(x.dtype)

    @torch.no_grad()
    def sample_bits(self, x: Tensor, rng: Rng) -> Tensor:
        """Draw z, each sample's bits from its own stream, as the reference does at test time."""
        probabilities = apply_in_batches(self.bit_probabilities, self.batch, x)
        return _quantizer(self.net).sample(probabilities, rng)

    def decode_unscaled(self, code: Tensor) -> Tensor:
        return self.from_network(self.call_net(_decode_bits, code))

    def loss(self, x: Tensor, rng: Rng) -> Tensor:
        bits = _quantizer(self.net).sample(self.bit_probabilities(x), rng.fork("bits"))
        return self.reconstruction_error(x, self.decode_unscaled(bits), rng)

    def fit_scale(self, *_: object, **__: object) -> None:
        """Do nothing: bits stay 0 and 1."""


def _bit_probabilities(net: nn.ModuleDict, x: Tensor) -> Tensor:
    return _quantizer(net).probabilities(net["encoder"](x))


def _decode_bits(net: nn.ModuleDict, code: Tensor) -> Tensor:
    return net["decoder"](net["norm"](_quantizer(net).embed(code)))


def _quantizer(net: nn.ModuleDict) -> BinaryQuantizer:
    bits = net["bits"]
    assert isinstance(bits, BinaryQuantizer)
    return bits


class _ActivatedGroupNorm(nn.GroupNorm):
    """A norm and the activation after it, under the names of the norm."""

    def forward(self, input: Tensor) -> Tensor:
        return silu(super().forward(input))


def _fuse_attention(net: nn.Module) -> None:
    from ..networks.monai_unet import fuse_attention  # here: importing MONAI takes seconds

    fuse_attention(net)


def _activate_last_norm(*coders: nn.Module) -> None:
    """Put an activation between the last norm and the last convolution, in place."""
    for coder in coders:
        norm = [*coder.get_submodule("blocks").children()][-2]
        norm.__class__ = _ActivatedGroupNorm


def _rescale(x: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    """Bring x from one range to another."""
    return (x - old[0]) * ((new[1] - new[0]) / (old[1] - old[0])) + new[0]


def _fourier_amplitudes(x: Tensor) -> Tensor:
    """The Fourier amplitudes of each row; a little above 0, where a modulus has no gradient."""
    with torch.autocast(x.device.type, enabled=False):
        spectrum = torch.fft.fftn(x.float(), dim=tuple(range(1, x.ndim)), norm="ortho")
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


def _latent_shape(shape: Sequence[int], channels: int, halvings: int) -> tuple[int, ...]:
    factor = 2**halvings
    if any(n % factor for n in shape[1:]):
        raise ValueError(
            f"an autoencoder that halves {halvings} times needs sides that divide by {factor}, "
            f"not {tuple(shape[1:])}; give its canvas divisor={factor}"
        )
    return (channels, *(n // factor for n in shape[1:]))
