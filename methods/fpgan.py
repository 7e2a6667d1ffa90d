"""Fixed-Point GAN: what changes in a sample when a GAN translates it to healthy.

Rahman Siddiquee et al., "Learning Fixed Points in Generative Adversarial Networks: From
Image-to-Image Translation to Disease Detection and Localization", ICCV 2019.
https://arxiv.org/abs/1908.06965 https://github.com/mahfuzmohammad/Fixed-Point-GAN

As in the authors' code for BRATS: both networks, the losses and their weights, images of 256,
batches of 8, one label (0 healthy, 1 diseased), 300 000 steps (the checkpoint that they test; the
page that says so trains for 10 000), the networks' norms at test time; a Wasserstein critic that is
trained in every step, and the generator in every fifth; the score is the map's maximum.
Differs, and named where an argument brings theirs back: data in [-0.95, 0.95], because
tanh(x + change) cannot be -1 (`edge=1`); each sample is translated to its other label, theirs to
that of another sample, which is often its own (`target="drawn"`: diseased as often as training
samples are); the rate falls to 0, theirs by a thousandth (`decay="stalled"`). The generator's step
is taken together with the critic's, not after it. Scores are of the change itself; theirs are read
from the change as saved in an 8-bit JPEG. Healthy and diseased samples are drawn as often as they
are in the training split, as theirs; `balanced` draws as many of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits as entropy

from ..datasets.base import Spec, Split
from ..engine.networks.fixed_point_gan import FixedPointDiscriminator, FixedPointGenerator
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Depth,
    Many,
    Natural,
    NonNegative,
    PositiveFraction,
)
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.augmentation import random_affine
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


@dataclass(frozen=True)
class LinearDecayTraining(Training):
    """Training whose rate falls to 0 in a straight line at its end.

    decay_steps: how many steps that takes, at most all.
    stalled: the rate falls every 1000 steps only, by what is meant for one, as in the authors'
    code, after StarGAN's.
    balanced: as many diseased samples are trained on as healthy ones.

    >>> from adbench.methods.fpgan import LinearDecayTraining
    >>> plan = LinearDecayTraining(steps=100, batch=8, lr=1e-4, decay_steps=50)
    >>> [round(plan.learning_rate(k), 6) for k in (0, 50, 75)]
    [0.0001, 0.0001, 5e-05]
    """

    decay: Literal["none", "cosine"] = field(default="none", metadata={"setting": False})
    decay_steps: Natural = field(default=0, metadata={"setting": False})
    stalled: bool = field(default=False, metadata={"setting": False})
    balanced: bool = False

    def learning_rate(self, k: int) -> float:
        start = max(self.steps - self.decay_steps, 0)
        if k <= start or not self.decay_steps:
            return self.lr
        if self.stalled:
            return self.lr * (1 - (k // 1000 - start // 1000) / self.decay_steps)
        return self.lr * (1 - (k - start) / (self.steps - start))


TRAINING = LinearDecayTraining(steps=300_000, batch=8, lr=1e-4, clip=None, ema=None, momentum=0.5)


@dataclass(frozen=True)
class GANConfig:
    """The networks.

    widths, res_blocks: of the generator.
    width, layers: of the critic.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.fpgan import FixedPointGAN, GANConfig
    >>> network = GANConfig(widths=(4, 8), res_blocks=1, width=4, layers=2)
    >>> method = FixedPointGAN(Spec(1, (16, 16), labels=True), size=None, network=network)
    >>> sum(p.numel() for p in method.critic.parameters())
    788
    """

    widths: Many[Count] = (64, 128, 256)
    res_blocks: Depth = 6
    width: Count = 64
    layers: Depth = 6


@dataclass(frozen=True)
class LossWeights:
    """The weights of the losses.

    classify: of the label that the critic predicts.
    restore: of the error after a translation and back.
    identity: of the error of a translation to a sample's own label.
    penalty: of the critic's gradient.

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.fpgan import FixedPointGAN, GANConfig, LossWeights
    >>> network = GANConfig(widths=(4, 8), res_blocks=1, width=4, layers=2)
    >>> method = FixedPointGAN(Spec(1, (8, 8), labels=True), size=None, network=network,
    ...     weights=LossWeights(classify=0.0, penalty=0.0))
    >>> x, label = torch.zeros(2, 1, 8, 8), torch.tensor([0.0, 1.0])
    >>> method.critic_loss(x, x, label, Rng(["a", "b"])).tolist()  # no translation, no loss
    [0.0, 0.0]
    """

    classify: NonNegative = 1.0
    restore: NonNegative = 10.0
    identity: NonNegative = 0.1
    penalty: NonNegative = 10.0


@dataclass(frozen=True)
class FixedPointGANQuirks:
    """What the authors' code does and this method does not by default.

    target: the label to translate to: the "other" one, or "drawn", which is often a sample's own.
    edge: what an intensity of 1 becomes, and -edge what 0 does; theirs is 1, which tanh cannot
    reach.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.fpgan import FixedPointGAN, FixedPointGANQuirks, GANConfig
    >>> network = GANConfig(widths=(4, 8), res_blocks=1, width=4, layers=2)
    >>> method = FixedPointGAN(Spec(1, (16, 16), labels=True), size=None, network=network,
    ...     quirks=FixedPointGANQuirks(edge=1.0))
    >>> method.canvas.range
    (-1.0, 1.0)
    """

    target: Literal["other", "drawn"] = "other"
    edge: PositiveFraction = 0.95


NETWORK = GANConfig()
WEIGHTS = LossWeights()
CORRECTED = FixedPointGANQuirks()


class FixedPointGAN(Method):
    """Fixed-Point GAN: the absolute change of a sample by its translation to healthy.

    critic_steps: steps of the critic for each of the generator, which is taken with the last.
    decay, decay_steps: how the learning rate falls, and in how many of the last steps.
    augment: flip training samples.
    judged: the score, the map's maximum or its mean.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.fpgan import FixedPointGAN, GANConfig
    >>> network = GANConfig(widths=(4, 8), res_blocks=1, width=4, layers=2)
    >>> FixedPointGAN(Spec(1, (16, 16), labels=True), size=None, network=network).canvas.range
    (-0.95, 0.95)
    """

    supervision = "image-labels"
    inference = frozenset({"judged"})

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, network: GANConfig = NETWORK, weights: LossWeights = WEIGHTS,
        critic_steps: Count = 5, training: LinearDecayTraining = TRAINING,
        decay: Literal["linear", "stalled", "none"] = "linear", decay_steps: Natural = 100_000,
        augment: bool = True, judged: Literal["max", "mean"] = "max",
        quirks: FixedPointGANQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        whole = 2 ** max(len(network.widths) - 1, network.layers)
        self.canvas = ResizePad(spec.shape, size, whole, low=-quirks.edge, high=quirks.edge)
        outer, channels = self.canvas.padded_shape, spec.channels
        self.translator = FixedPointGenerator(
            outer, channels, network.widths, blocks=network.res_blocks
        )
        self.critic = FixedPointDiscriminator(
            outer, channels, width=network.width, layers=network.layers
        )
        self.plan = replace(
            training, decay_steps=0 if decay == "none" else decay_steps, stalled=decay == "stalled"
        )
        self.weights, self.critic_steps, self.target = weights, critic_steps, quirks.target
        self.augment, self.judged = augment, judged

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        share = 0.5 if self.plan.balanced else 0.0
        if self.target == "drawn" and not self.plan.balanced:
            share = _diseased_share(train)

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            x = self.canvas.forward(random_affine(x, rng, flip=0.5) if self.augment else x)
            own = label.float()
            target = self._target_labels(own, rng, share)
            both = int(rng.step[0]) % self.critic_steps == self.critic_steps - 1
            with torch.set_grad_enabled(both):
                fake = self.translator(x, target)
            critic_loss = self.critic_loss(x, fake.detach(), own, rng)
            return critic_loss + self.generator_loss(x, fake, own, target) if both else critic_loss

        train_module(loss, self, train, context, self.plan)

    def critic_loss(self, x: Tensor, fake: Tensor, own: Tensor, rng: Rng) -> Tensor:
        """The critic's loss: Wasserstein distance, label and gradient penalty, (N,).

        x, fake: samples and their translations, (N, C, *outer)
        own: the labels of x, (N,)
        rng: one stream per sample
        """
        mix = rng.fork("mix").uniform((1,) * (x.ndim - 1)).to(x)
        (real, logit), (false, _) = self.critic(x), self.critic(fake)
        penalty = self.critic.slope_penalty(mix * x + (1 - mix) * fake)
        return (
            false
            - real
            + self.weights.classify * self._classification_loss(logit, own)
            + self.weights.penalty * penalty
        )

    def generator_loss(self, x: Tensor, fake: Tensor, own: Tensor, target: Tensor) -> Tensor:
        """The generator's loss: of the translation to another label, of that to the sample's own,
        and of the difference of the latter from the sample, (N,). No gradient reaches the critic.

        x, fake: samples and their translations to `target`, (N, C, *outer)
        own, target: labels, (N,)
        """
        fixed = self.translator(x, own)
        there, here = (
            self._translation_loss(x, fake, own, target),
            self._translation_loss(x, fixed, own, own),
        )
        return there + here + self.weights.identity * _mean_absolute_difference(x, fixed)

    def _translation_loss(self, x: Tensor, fake: Tensor, own: Tensor, target: Tensor) -> Tensor:
        """A translation's loss: critic, label, and the error after the translation back, (N,)."""
        frozen = {key: value.detach() for key, value in self.critic.named_parameters()}
        real, logit = functional_call(self.critic, frozen, (fake,))
        back = _mean_absolute_difference(x, self.translator(fake, own))
        return (
            -real
            + self.weights.classify * self._classification_loss(logit, target)
            + self.weights.restore * back
        )

    def _classification_loss(self, logit: Tensor, label: Tensor) -> Tensor:
        return entropy(logit, label, reduction="none")

    def _target_labels(self, own: Tensor, rng: Rng, share: float) -> Tensor:
        """The labels to translate to, (N,); share: of diseased ones, where they are drawn."""
        if self.target == "other":
            return 1 - own
        return (rng.fork("target").uniform() < share).to(own)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        healthy = self.translator(self.canvas.forward(x), torch.zeros(len(x), device=x.device))
        normal = self.canvas.inverse(healthy).expand(len(levels), *x.shape)
        map = (normal - x).abs().mean(2)
        flat = map.flatten(2)
        return Detection(flat.amax(2) if self.judged == "max" else flat.mean(2), map, normal)


def _diseased_share(train: Split, most: int = 1024) -> float:
    """The share of diseased samples, of `most` at most, evenly spaced."""
    labels = [bool(train[i].label) for i in evenly_spaced_indices(len(train), most)]
    return sum(labels) / max(len(labels), 1)


def _mean_absolute_difference(x: Tensor, y: Tensor) -> Tensor:
    """The mean absolute difference, (N,)."""
    return (x - y).float().abs().flatten(1).mean(1)
