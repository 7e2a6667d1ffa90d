"""InvAD: where a few steps of inversion take a sample's features is how unusual they are.

Sakai et al., "Reconstruction-Free Anomaly Detection with Diffusion Models", 2025.
https://arxiv.org/abs/2504.05662 https://github.com/SkyShunsuke/InversionAD

As there: a diffusion model of a frozen network's features on a grid at a sixteenth of the side;
at inference three steps of DDIM's ODE upwards, from the features to the noise of level 1000, and no
reconstruction: normal features end where noise is common, others far from it. The map is the length
of the vector at every position, enlarged; the score adds the negative log likelihood of the whole
under the standard normal distribution and the range of the map.

Differs: the score's two parts are divided by what they grow with, the number of features and its
root, where the authors' code scales both by their ranges over the test set; the first step calls
the network at level 1 of 1000; features of three layers of EfficientNet-lite0 by default, whose
weights a package ships, where theirs are of EfficientNet-B4, and standardised; a UNet in place of a
diffusion transformer; AdamW with warm-up and a constant learning rate. The levels at which the
inversion may end are ours; theirs is 1000.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.codecs.codec import BackboneFeatures
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.features.backbones import BackboneName
from ..engine.features.feature_maps import FeatureMaps
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Many, Natural
from ..engine.sampling.reconstruct import SamplingConfig, ddim_invert
from ..engine.training.loop import Training, train_module
from ..engine.transforms.feature_grid import backbone_canvas, enlarge_grid
from .base import Detection, Method

NETWORK = HeadsUNetConfig(256, (1, 2, 3), 2, attention=(False, True, True), heads=4)
SCHEDULE = ScheduleConfig(beta="linear")
TRAINING = Training(steps=136_000, batch=8, lr=5e-5, warmup=18_000, clip=None, ema=0.999)


class InvAD(Method):
    """Score every position by the length of the noise that its features are inverted to.

    size: pixels along the longest axis.
    features, depths: name of the frozen network and numbers of its layers; the last has the grid.
    sampling_steps: of the inversion.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.invad import InvAD
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, True), heads=1)
    >>> method = InvAD(Spec(1, (64, 64)), size=64, features="effperc-random", network=network)
    >>> method.codec.latent, method.chain.steps
    ((176, 4, 4), 3)
    """

    levels, published = (250, 500, 750, 1000), 1000
    ndims = frozenset({2})
    inference = frozenset({"sampling_steps"})

    def __init__(
        self, spec: Spec, *,
        size: Count = 256, features: BackboneName = "effperc", depths: Many[Natural] = (1, 2, 3),
        network: HeadsUNetConfig = NETWORK, schedule: ScheduleConfig = SCHEDULE,
        training: Training = TRAINING, sampling_steps: Count = 3,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        maps = FeatureMaps(spec.channels, features, depths)
        divisor = maps.strides[-1] * network.side_divisor
        self.canvas = backbone_canvas(spec.shape, size, divisor)
        self.codec = BackboneFeatures(
            (spec.channels, *self.canvas.padded_shape), maps, layer=len(depths) - 1
        )
        self.denoiser = Denoiser(network.build(2, self.codec.latent[0]), schedule.build(),
            trained_on=f"features of {self.canvas}")  # fmt: skip
        self.plan, self.chain = training, SamplingConfig(sampling_steps)

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self.codec.encode(self.canvas.forward(x)), rng)

        self.codec.fit_scale(train, context, preprocess=self.canvas.forward)
        context.place(self)
        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        z = self.codec.encode(self.canvas.forward(x))
        noise = ddim_invert(self.denoiser, z, levels, sampling=self.chain)  # (L, N, K, h, w)
        square = torch.zeros_like(noise[:, :, 0])
        for channel in noise.unbind(2):
            square += channel.square()  # in this order, in any batch
        count = noise.shape[2]
        length = square.sqrt()
        likelihood = torch.stack([one.mean() for one in square.flatten(0, 1)]) / count
        spread = (length.amax((2, 3)) - length.amin((2, 3))) / count**0.5
        score = (likelihood.view(spread.shape) + log(2 * pi)) / 2 + spread
        map = enlarge_grid(length.flatten(0, 1), self.canvas)[1]
        return Detection(score, map.view(len(levels), len(x), *x.shape[2:]))
