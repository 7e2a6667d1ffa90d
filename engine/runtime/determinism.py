"""What makes a GPU give the same numbers again, and float32 mean float32."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"

REPEAT_TOLERANCE = 1e-3
"""How far results of the same few steps may lie apart, relative to the largest value of a tensor,
where an operation has no deterministic algorithm. Elsewhere they are the same to the bit."""

NO_ALGORITHM = re.compile(
    r"(.+?) (does not have a deterministic implementation|defaults to a non-deterministic algo)"
)
"""What torch warns of, once at each call."""


def make_cuda_deterministic(*, tf32: bool = False) -> None:
    """Set torch's CUDA backends so that the same work gives the same bits again.

    Algorithms of cuDNN and cuBLAS are deterministic ones, chosen without timing, and torch takes
    its deterministic kernels where it has them; where it has none, it warns. Products and
    convolutions of float32 are IEEE's unless `tf32`: by default cuDNN would round their inputs to
    10 bits of mantissa, an error of about 1e-3. To be called before CUDA computes: cuBLAS reads its
    workspace's size once.

    tf32: products and convolutions of float32 may round their inputs to TensorFloat-32

    >>> import torch
    >>> from adbench.engine.runtime.determinism import make_cuda_deterministic
    >>> make_cuda_deterministic()
    >>> torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    (True, False)
    >>> torch.use_deterministic_algorithms(False)
    """
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def record_nondeterminism(operations: set[str]) -> Iterator[None]:
    """A context that adds to `operations` the names of those that had no deterministic algorithm,
    of which torch warns on a GPU; other warnings pass.

    >>> import warnings
    >>> from adbench.engine.runtime.determinism import record_nondeterminism
    >>> operations = set()
    >>> with record_nondeterminism(operations):
    ...     warnings.warn("index_add_cuda_ does not have a deterministic implementation, but ...")
    >>> operations
    {'index_add_cuda_'}
    """
    with warnings.catch_warnings():
        show = warnings.showwarning

        def record(message: Warning | str, *details: Any, **more: Any) -> None:
            match = NO_ALGORITHM.match(str(message))
            if match is None:
                show(message, *details, **more)
            else:
                operations.add(match[1])

        for text in ("does not have a deterministic impl", "defaults to a non-deterministic algo"):
            warnings.filterwarnings("always", f".* {text}")
        warnings.showwarning = record
        yield


def repeat_tolerance(operations: set[str]) -> float:
    """Return how far repeated results may lie apart after these operations, 0 after none.

    >>> from adbench.engine.runtime.determinism import repeat_tolerance
    >>> repeat_tolerance(set()), repeat_tolerance({"index_add_cuda_"})
    (0.0, 0.001)
    """
    return REPEAT_TOLERANCE if operations else 0.0
