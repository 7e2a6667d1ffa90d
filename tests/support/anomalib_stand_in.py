"""A stand-in for what the adapter calls of anomalib 2 and Lightning: models by name with a network,
a pre-processor and callbacks; an engine that fits them; batches of images.

Names, arguments and return values are those of anomalib 2.7 (models/components/base, engine,
data/dataclasses). The one model keeps the mean of the training images, as a buffer that it makes
when it is fitted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn


class InferenceBatch(NamedTuple):
    pred_score: Tensor | None = None
    pred_label: Tensor | None = None
    anomaly_map: Tensor | None = None
    pred_mask: Tensor | None = None


@dataclass
class ImageBatch:
    image: Tensor
    gt_label: Tensor
    gt_mask: Tensor
    image_path: list[str]

    def __post_init__(self) -> None:
        count, channels = self.image.shape[:2]
        assert channels == 3 and len(self.gt_label) == len(self.image_path) == count
        assert self.gt_mask.shape == (count, *self.image.shape[2:])


class PreProcessor(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, batch: Tensor) -> Tensor:
        return nn.functional.interpolate(batch, self.size, mode="bilinear") * 2 - 1


class Network(nn.Module):
    mean: Tensor

    def __init__(self, *, shift: float) -> None:
        super().__init__()
        self.shift = shift
        self.register_buffer("mean", torch.empty(0))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        self.mean.resize_(state_dict[f"{prefix}mean"].shape)
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)

    def forward(self, images: Tensor) -> InferenceBatch:
        maps = (images - self.mean).abs().mean(1, keepdim=True) - self.shift
        return InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps)


class MeanImage(nn.Module):
    """As a LightningModule of anomalib."""

    def __init__(
        self,
        pre_trained: bool = True,
        shift: float = 0.0,
        pre_processor: Any = True,
        post_processor: Any = True,
        evaluator: Any = True,
        visualizer: Any = True,
    ) -> None:
        super().__init__()
        assert not (post_processor or evaluator or visualizer)
        if pre_trained:
            raise OSError("no route to https://hub.example/backbone.safetensors (offline)")
        self.pre_processor = self.configure_pre_processor() if pre_processor is True else (
            pre_processor
        )  # fmt: skip
        self.model = Network(shift=shift)

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        return PreProcessor(image_size or (256, 256))


class Engine:
    def __init__(
        self,
        callbacks: list[Any] | None = None,
        logger: Any = None,
        default_root_dir: str = "results",
        **trainer: Any,
    ) -> None:
        self.callbacks, self.max_epochs = callbacks or [], trainer["max_epochs"]

    def fit(self, model: MeanImage, train_dataloaders: Any, val_dataloaders: Any) -> None:
        self.current_epoch, self.num_training_batches = 0, len(train_dataloaders)
        images = []
        for index, batch in enumerate(train_dataloaders):
            images.append(model.pre_processor(batch.image))
            for callback in self.callbacks:
                callback.on_train_batch_end(self, model, {"loss": torch.zeros(())}, batch, index)
        model.model.mean = torch.cat(images).mean(0)
        assert sum(len(batch.image) for batch in val_dataloaders)


class Callback:
    """As that of Lightning."""


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `import anomalib` find the stand-in, whether or not anomalib is installed."""
    modules: dict[str, dict[str, Any]] = {
        "anomalib": {},
        "anomalib.models": {"__all__": ["MeanImage", "get_model"], "MeanImage": MeanImage},
        "anomalib.engine": {"Engine": Engine},
        "anomalib.data": {"ImageBatch": ImageBatch},
        "lightning": {},
        "lightning.pytorch": {"Callback": Callback},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
