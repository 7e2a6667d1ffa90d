"""Weights that were imported into the store, loaded by an experiment in place of a training."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from ...methods.base import Method
from ..store.artifact_store import Store
from .matrix import Experiment
from .run_config import OptionError


def load_imported_weights(
    experiment: Experiment, store: Store, method: Method
) -> dict[nn.Module, dict[str, Tensor]]:
    """Return the imported weights of a method's parts, for its `TrainingContext`.

    experiment: of `method@NAME`; of any other method there are none
    method: as it is built for the experiment
    Raises OptionError where the weights are gone from the store.

    >>> from pathlib import Path
    >>> from types import SimpleNamespace
    >>> entry = SimpleNamespace(name="anoddpm@mine", weights="0123456789abcdef0123456789abcdef")
    >>> store = Store(Path("/no/such/store"))
    >>> load_imported_weights(SimpleNamespace(method=entry), store, None)
    Traceback (most recent call last):
    adbench...OptionError: the weights of anoddpm@mine are gone from the store: import them again
    """
    key = experiment.method.weights
    if not key:
        return {}
    artifact = store.read_metadata("weights", key)
    if artifact is None:
        raise OptionError(
            f"the weights of {experiment.method.name} are gone from the store: import them again"
        )
    by_part: dict[Any, dict[str, Tensor]] = {}
    for name, value in load_file(artifact.path).items():
        part, _, rest = name.partition(".")
        by_part.setdefault(getattr(method, part), {})[rest] = value
    return by_part
