"""Read the tensors of a checkpoint file without running anything that it holds.

Safetensors, or torch's own format by its restricted reader, which builds tensors, numbers, text and
containers of these and nothing else.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runtime.weight_names import abbreviate

WRAPPERS = (
    "state_dict", "model_state_dict", "model_weights", "model", "ema_state_dict", "unet_state_dict",
    "autoencoder_state_dict", "vqvae_state_dict", "net", "ema", "unet",
)  # fmt: skip
"""Keys under which a file of several objects stores the weights; the first that exists counts."""


class CheckpointError(ValueError):
    """A checkpoint that does not fit a network, or a file that is no checkpoint.

    >>> from adbench.engine.checkpoints.reading import CheckpointError, select_state
    >>> try:
    ...     select_state({"epoch": 3})
    ... except CheckpointError as error:
    ...     print(error)
    there is no state dict; its keys: epoch
    """

    exit_code = 2


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint file and return what it holds.

    path: .safetensors, or any file that `torch.save` wrote
    Raises CheckpointError on other files, and on one that needs a class to be built: with its name,
    and with the lines that make a safe file of it.

    >>> from pathlib import Path
    >>> from adbench.engine.checkpoints.reading import CheckpointError, read_checkpoint
    >>> try:
    ...     read_checkpoint(Path("/no/such/model.pt"))
    ... except CheckpointError as error:
    ...     print(error)
    there is no file /no/such/model.pt
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():  # about how it was written: it reads or it does not
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader may fail in any way on a file that is no checkpoint
        if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(_unsafe_message(path, match[1])) from error
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        # torch advises to run what the file holds, or to report an error of its own: not here
        if "weights_only" in reason or "PytorchStreamReader" in reason:
            reason = "it is cut off, damaged, or no file that torch.save wrote"
        raise CheckpointError(f"{path} cannot be read as weights alone: {reason}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds no state dict, but a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def select_state(content: Mapping[str, Any], part: str | None = None) -> dict[str, Tensor]:
    """Return the state dict within the content of a checkpoint file, its names cleaned.

    content: of `read_checkpoint`; a state dict, or one under a key of WRAPPERS
    part: the key of the state dict, with dots for keys within it; found by WRAPPERS if None
    Names lose the prefixes that DataParallel and torch.compile add, floats become float32.
    Raises CheckpointError where there is no state dict.

    >>> import torch
    >>> from adbench.engine.checkpoints.reading import select_state
    >>> select_state({"epoch": 3, "model": {"module.w": torch.ones(1)}})
    {'w': tensor([1.])}
    """
    state: Any = content
    if part is not None:
        for key in part.split("."):
            state = state.get(key) if isinstance(state, Mapping) else None
    else:
        names = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        state = content[names[0]] if names else content
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        keys = abbreviate(sorted(map(str, content)), "its keys")
        raise CheckpointError(f"there is no state dict{f' at {part!r}' if part else ''}; {keys}")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    clean = {re.sub(r"^(module\.|_orig_mod\.)+", "", key): value for key, value in tensors.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in clean.items()}


def _unsafe_message(path: Path, name: str) -> str:
    return (
        f"{path} needs {name} to be built, and a class that a file names is never run here. If you "
        "trust the file, write its weights alone with these lines, and import what they write:\n"
        f'  import torch; content = torch.load("{path.name}", map_location="cpu", '
        "weights_only=False)\n"
        "  state = content.get('state_dict') or content.get('model_state_dict') or content\n"
        f'  torch.save(state, "{path.stem}-weights.pt")'
    )
