"""Checkpoints of monai-generative, the archived home of MONAI's diffusion networks: its weights
under the names that MONAI's own networks have.

Attention has one more level of names in MONAI, and its output layer and the layer after an
upsampling have other names. Self-attention's output layer (`proj_attn`) was created there, saved
and never called, as version 0.2.3 shows when it is run: here it becomes the identity, since else
the network would compute something else. Read as tensors only: safetensors, or torch's format
without any code in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..codecs.quantization import Codebook
from .conversion import Source, convert
from .reading import read_checkpoint, select_state

RENAMED_PARTS = (
    (".attn.out_proj.", ".proj_attn."),
    (".attn.to_", ".to_"),
    (".out_proj.", ".to_out.0."),
    (".postconv.", ".conv."),
)
"""Parts of a name: in MONAI, and in monai-generative."""

UNUSED_PART = ".proj_attn."

CODEBOOK_NAMES = {
    "codebook.codes": "quantizer.quantizer.embedding.weight",
    "codebook.sizes": "quantizer.quantizer.ema_cluster_size",
    "codebook.sums": "quantizer.quantizer.ema_w",
}


TRAINING_ONLY = ("adversary.", "looks.")
"""Parts of a codec that only its training needs, and that no file of a network holds."""


def load_monai_generative(net: nn.Module, source: Path | str | Mapping[str, Tensor]) -> None:
    """Load the weights of a file, or of a state dict, into a network, under old names or new.

    net: of `build_unet`; the `net` of `autoencoder.KL`; or an `autoencoder.VQ`, all of it
    source: a file (.safetensors, or torch's format), or a state dict; CheckpointError where it is
        none, or its names or sizes are of another network

    >>> import torch
    >>> from adbench.engine.checkpoints.monai_generative import load_monai_generative
    >>> from torch import nn
    >>> net = nn.Linear(1, 1)
    >>> load_monai_generative(net, {"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    >>> net.weight.item()
    1.0
    """
    content = read_checkpoint(Path(source)) if isinstance(source, str | Path) else source
    own = net.state_dict()
    with torch.no_grad():
        for key, value in convert_monai_generative(net, select_state(content)).items():
            own[key].copy_(value)


def convert_monai_generative(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of a network; what is no weight of a network is not among
    them: a codec's scale, counters, a discriminator.

    net: as for `load_monai_generative`
    state: under old names or new
    Raises CheckpointError that lists what is missing, unknown, or of another shape.

    >>> import torch
    >>> from adbench.engine.checkpoints.monai_generative import convert_monai_generative
    >>> from torch import nn
    >>> convert_monai_generative(nn.Linear(1, 1, bias=False), {"weight": torch.ones(1, 1)})
    {'weight': tensor([[1.]])}
    """
    weights = {key: value for key, value in net.state_dict().items() if not _is_own_state(net, key)}
    names = {key: name for key in weights for name in _candidate_names(key) if name in state}
    sources: dict[str, Source] = {
        key: (name, _identity if UNUSED_PART in name else None) for key, name in names.items()
    }
    return convert(weights, state, sources)


def _identity(like: Tensor) -> Tensor:
    """The weight (C, C) or the bias (C,) of a linear layer that changes nothing."""
    return torch.eye(len(like)) if like.ndim == 2 else torch.zeros(len(like))


def _candidate_names(key: str) -> list[str]:
    """The names that a weight may have in a file; its own name last, which is the one that
    counts."""
    body = key.removeprefix("net.")
    names = [CODEBOOK_NAMES.get(key, body)]
    for new, old in RENAMED_PARTS:
        names = [body.replace(new, old) if new in body else name for name in names]
        if new in body:
            break
    if body.startswith("out.2."):  # ddpm-ood-signals has no norm there, and so counts from 1
        names.append(f"out.1.{body.removeprefix('out.2.')}")
    return [*names, body, key]


def _is_own_state(net: nn.Module, key: str) -> bool:
    """Whether a key is no weight of a network: a codec's own, or a counter of a codebook."""
    part, _, name = key.rpartition(".")
    module = net.get_submodule(part)
    counting = isinstance(module, Codebook) and name not in ("codes", "sizes", "sums")
    own = key in ("centre", "scale") or name == "_extra_state"
    return counting or own or key.startswith(TRAINING_ONLY)
