"""What makes a GPU give the same numbers again, and float32 mean float32."""

from __future__ import annotations

import os

import torch
import torch.utils.deterministic

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


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
