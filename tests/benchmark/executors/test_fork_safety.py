"""Nothing that a fork server imports begins with CUDA, which would not survive a fork."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys

import adbench.engine
from adbench.benchmark.executors.fork_server import PRELOAD
from adbench.benchmark.registry.registry import Registry

SCRIPT = """
import importlib, json, sys
import torch
began = []
def begin(*args, **options):
    began.append(sys._getframe(1).f_code.co_filename)
    raise RuntimeError("CUDA would begin here")
torch.cuda._lazy_init = torch._C._cuda_init = begin
torch._C._cuda_getDeviceCount = begin  # starts the driver; NVML's count does not
torch.cuda._device_count_nvml = lambda: 1
for name in json.loads(sys.argv[1]):
    importlib.import_module(name.partition(":")[0])
early = list(began)
try:
    torch.empty(1, device="cuda")
except RuntimeError:
    pass
print(json.dumps([early, len(began) - len(early), torch.cuda.is_initialized(), len(sys.modules)]))
"""


def test_all_that_is_preloaded_leaves_cuda_alone() -> None:
    """The preloaded modules, all of the engine, and those of every method and dataset."""
    registry = Registry.read()
    entries = [*registry.methods.values(), *registry.datasets.values()]
    parts = pkgutil.walk_packages(adbench.engine.__path__, "adbench.engine.")
    names = [
        *PRELOAD,
        *(part.name for part in parts),
        *sorted({entry.import_path.partition(":")[0] for entry in entries}),
    ]
    env = os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(names)],
        capture_output=True, text=True, env=env, timeout=300,
    )  # fmt: skip
    assert output.returncode == 0, output.stderr
    began, trapped, initialised, count = json.loads(output.stdout.splitlines()[-1])
    assert not began and not initialised
    assert trapped and count > 1000  # the trap works
