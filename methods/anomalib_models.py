"""Image models of anomalib, trained by its own engine: PatchCore, PaDiM, STFPM, Dinomaly and more.

Akcay et al., ICIP 2022. https://arxiv.org/abs/2202.08341
https://github.com/open-edge-platform/anomalib (Apache-2.0); called by its public interface of
version 2.

It is run by the name of the model, `anomalib:patchcore`, and needs the extra `anomalib`. Weights
of pretrained backbones are fetched by anomalib (timm, torchvision) into its own cache.

Departs: anomalib's thresholds and normalisation of scores are left out, for the protocol chooses.
A map is shifted by its lowest value on calibration samples, where that is negative. Training that
is interrupted begins anew.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ..datasets.base import Sample, Spec, Split
from ..engine.runtime.context import Interrupted, TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count
from .base import Detection, Method


class AnomalibModel(Method):
    """A model of anomalib. Its score is the model's own, its map the model's map.

    model: its name in anomalib, in any case and with or without underscores
    options: arguments of its constructor as texts, [backbone=resnet18, pre_trained=false]
    epochs: of training; models that see the data once take one
    batch: images at a time
    image_size: rows and columns that images are resized to; None for the model's own

    Raises ValueError on a model that anomalib lacks, RuntimeError where anomalib is not installed
    and where pretrained weights cannot be had.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.anomalib_models import AnomalibModel
    >>> try:
    ...     AnomalibModel(Spec(2, (64, 64)), model="padim")
    ... except ValueError as error:
    ...     print(error)
    anomalib takes images of 1 or 3 channels, not 2
    """

    ndims = frozenset({2})
    offset: Tensor  # (), what is added to maps

    def __init__(
        self,
        spec: Spec,
        *,
        model: str = "padim",
        options: Sequence[str] = (),
        epochs: Count = 100,
        batch: Count = 32,
        image_size: Count | None = None,
    ) -> None:
        super().__init__(spec)
        if spec.channels not in (1, 3):
            raise ValueError(f"anomalib takes images of 1 or 3 channels, not {spec.channels}")
        self.model, self.epochs, self.batch = model, epochs, batch
        cls = _model_class(model)
        parts: dict[str, Any] = {"post_processor": False, "evaluator": False, "visualizer": False}
        if image_size is not None:
            size = (image_size, image_size)
            parts["pre_processor"] = cls.configure_pre_processor(image_size=size)
        try:
            self._module = (cls(**parts, **_options(options)),)  # no submodule: only its network
        except (TypeError, ValueError) as error:
            raise ValueError(f"anomalib:{model}: {_first_line(error)}") from error
        except Exception as error:  # of timm, torchvision, huggingface_hub or the network
            raise RuntimeError(
                f"anomalib:{model} cannot load its pretrained weights ({_missing_file(error)}): "
                "fetch them once with a network, or --set options=[pre_trained=false] does without"
            ) from error
        self.net = self._module[0].model
        self.register_buffer("offset", torch.zeros(()))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        engine_class = import_module("anomalib.engine").Engine
        kind = torch.device(context.device).type
        gpu = torch.device(context.device).index or 0
        with tempfile.TemporaryDirectory(prefix="adbench-") as folder, torch.random.fork_rng():
            torch.manual_seed(context.seed)
            engine = engine_class(
                callbacks=[_progress_callback(context)],
                default_root_dir=folder,
                max_epochs=self.epochs,
                accelerator="gpu" if kind == "cuda" else "cpu",
                devices=[gpu] if kind == "cuda" else 1,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Lightning: workers, logging intervals
                engine.fit(
                    self._module[0],
                    self._loader(train, context.seed),
                    self._loader(calibration, None),
                )
        context.place(self).eval()
        lowest = torch.zeros(())
        for start in range(0, len(calibration), self.batch):
            stop = min(start + self.batch, len(calibration))
            x = torch.stack([calibration[i].x for i in range(start, stop)]).to(context.device)
            maps = self._predict(x)[1]
            if maps is not None:
                lowest = torch.minimum(lowest, maps.min().cpu())
        self.offset.copy_(-lowest)

    @torch.no_grad()
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        score, maps = self._predict(x)
        if maps is None:
            return Detection(score[None])
        return Detection(score[None], (maps + self.offset).clamp(min=0)[None])

    @torch.no_grad()
    def _predict(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores (N,) and maps (N, H, W) of images (N, C, H, W), as the model gives them."""
        prepared = self._module[0].pre_processor(x.expand(-1, 3, -1, -1))
        output = self.net(prepared)
        maps = output.anomaly_map
        if maps is not None:
            maps = maps.reshape(len(x), 1, *maps.shape[-2:]).float()
            maps = F.interpolate(maps, self.spec.shape, mode="bilinear", align_corners=False)[:, 0]
        score = output.pred_score
        if score is None:
            assert maps is not None
            score = maps.amax((1, 2))
        return score.reshape(len(x)).float(), maps

    def _loader(self, split: Split, seed: int | None) -> DataLoader[Any]:
        """Batches of anomalib from a split, in a random order with a seed."""
        data = import_module("anomalib.data")

        def batch(samples: list[Sample]) -> Any:
            return data.ImageBatch(
                image=torch.stack([sample.x.expand(3, -1, -1) for sample in samples]),
                gt_label=torch.tensor([sample.label for sample in samples]),
                gt_mask=torch.zeros(len(samples), *self.spec.shape, dtype=torch.bool),
                image_path=[sample.key for sample in samples],
            )

        shuffle = seed is not None
        generator = torch.Generator().manual_seed(seed) if seed is not None else None
        return DataLoader(
            _Samples(split), self.batch, shuffle=shuffle, generator=generator, collate_fn=batch
        )


class _Samples(torch.utils.data.Dataset[Sample]):
    """A split as torch's loader takes it."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Sample:
        return self._split[index]


def _progress_callback(context: TrainingContext) -> Any:
    """A callback of Lightning that reports every step, and stops where the context asks to."""
    lightning = import_module("lightning.pytorch")

    class Progress(lightning.Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
        ) -> None:
            if context.stop():
                raise Interrupted("stopped training; anomalib begins anew")
            batches = trainer.num_training_batches
            step = trainer.current_epoch * batches + index + 1
            facts: dict[str, Any] = {"step": step, "of": trainer.max_epochs * batches}
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            if isinstance(loss, Tensor) and loss.ndim == 0:
                facts["loss"] = float(loss.detach())
            context.on_event("train", facts)

    return Progress()


def _model_class(name: str) -> Any:
    """The class of a model of anomalib by its name."""
    try:
        zoo = import_module("anomalib.models")
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"anomalib:{name} needs anomalib ({_first_line(error)}): "
            "pip install 'diffusion-adbench[anomalib]'"
        ) from error
    classes = {key.lower(): getattr(zoo, key) for key in zoo.__all__ if key[0].isupper()}
    cls = classes.get(name.replace("_", "").lower())
    if cls is None:
        close = get_close_matches(name.replace("_", "").lower(), classes, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"anomalib has no model {name!r}: {hint}it has {', '.join(classes)}")
    return cls


def _options(texts: Sequence[str]) -> dict[str, Any]:
    """Arguments from texts such as "pre_trained=false", whose values are read as YAML."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (_, equals, _) in zip(texts, pairs, strict=True) if not equals]:
        raise ValueError(f"options are texts NAME=VALUE, not {wrong[0]!r}")
    return {name.strip(): yaml.safe_load(value) for name, _, value in pairs}


def _missing_file(error: BaseException) -> str:
    """The address that could not be fetched, as far as an error or its causes tell it."""
    cause: BaseException | None = error
    while cause is not None:
        with suppress(Exception):  # httpx raises where an error is of no request
            if (url := getattr(getattr(cause, "request", None), "url", None)) is not None:
                return str(url)
        if match := re.search(r"https?://[^\s'\")]+", str(cause)):
            return match[0].rstrip(":.,")
        cause = cause.__cause__ or cause.__context__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
