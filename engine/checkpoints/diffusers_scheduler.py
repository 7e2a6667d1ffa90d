"""diffusers' scheduler configurations as our noise schedules, and ours as theirs.

What a network was trained for is mapped: the betas, what it predicts, the range that estimates are
clipped to. Which levels a sampler visits, and how, is the method's here. What has no equal (a
schedule rescaled to end without signal, clipping by quantiles) is refused.
Source: huggingface.co/docs/diffusers, `DDPMScheduler`, `DDIMScheduler`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, PredictionType
from ..diffusion.gaussian import Gaussian
from ..diffusion.schedule import (
    Schedule,
    cosine_schedule,
    linear_schedule,
    scaled_linear_schedule,
)
from .diffusers_folder import read_json, require_equal
from .reading import CheckpointError

FILE = "scheduler_config.json"
EXPECTED = {"thresholding": False, "rescale_betas_zero_snr": False, "use_flow_sigmas": False}
PREDICTIONS: dict[str, PredictionType] = {
    "epsilon": "noise",
    "sample": "clean",
    "v_prediction": "v",
}
KEPT = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas",
    "prediction_type", "clip_sample", "clip_sample_range")  # fmt: skip
"""What of a configuration is mapped."""

DEFAULT_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
    "trained_betas": None, "prediction_type": "epsilon", "clip_sample": True,
    "clip_sample_range": 1.0,
}  # fmt: skip
NO_CLIPPING = ("PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler")  # fmt: skip
"""Schedulers that never clip, whose configurations have no `clip_sample`."""


def find_scheduler(folder: Path) -> dict[str, Any] | None:
    """Return the configuration of the scheduler beside a network, checked; None without one.

    folder: of a network or of a pipeline
    Raises CheckpointError on one that has no equal here.

    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.engine.checkpoints.diffusers_scheduler import find_scheduler
    >>> with TemporaryDirectory() as folder:
    ...     text = json.dumps({"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear"})
    ...     _ = Path(folder, "scheduler_config.json").write_text(text)
    ...     config = find_scheduler(Path(folder))
    >>> config["beta_schedule"], config["prediction_type"]
    ('scaled_linear', 'epsilon')
    """
    places = (folder, folder / "scheduler", folder.parent / "scheduler")
    path = next((p / FILE for p in places if (p / FILE).is_file()), None)
    if path is None:
        return None
    config = read_json(path)
    require_equal(path, config, EXPECTED | {"prediction_type": tuple(PREDICTIONS)})
    if config.get("_class_name") in NO_CLIPPING:
        config.setdefault("clip_sample", False)
    config = {key: (DEFAULT_CONFIG | config)[key] for key in KEPT}
    build_diffusers_schedule(config)
    return config


def build_diffusers_schedule(config: Mapping[str, Any]) -> Schedule:
    """Return the schedule of a configuration; CheckpointError on one that has no equal.

    >>> from adbench.engine.checkpoints.diffusers_scheduler import DEFAULT_CONFIG
    >>> from adbench.engine.checkpoints.diffusers_scheduler import build_diffusers_schedule
    >>> build_diffusers_schedule(DEFAULT_CONFIG).name
    'linear 1000 0.0001 0.02'
    """
    steps, name = int(config["num_train_timesteps"]), config["beta_schedule"]
    if config["trained_betas"] is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
        return Schedule(betas, f"betas {len(betas)} {betas[0]:g} {betas[-1]:g} {betas.sum():g}")
    # ours are for 1000 steps, and scaled for other numbers
    first, last = (round(float(config[key]) * steps / 1000, 12) for key in
        ("beta_start", "beta_end"))  # fmt: skip
    if name == "linear":
        return linear_schedule(steps, first, last)
    if name == "scaled_linear":
        return scaled_linear_schedule(steps, first, last)
    if name == "squaredcos_cap_v2":
        return cosine_schedule(steps)
    raise CheckpointError(
        f"the schedule beta_schedule={name!r} has no equal here: linear, scaled_linear, "
        "squaredcos_cap_v2 and trained_betas have"
    )


def apply_scheduler(denoiser: Denoiser, config: Mapping[str, Any]) -> None:
    """Give a denoiser the schedule, prediction type and clipping of a configuration, in place.

    config: as `find_scheduler` returns it
    Raises CheckpointError where the denoiser's process is not Gaussian.

    >>> from torch import nn
    >>> from adbench.engine.checkpoints.diffusers_scheduler import DEFAULT_CONFIG, apply_scheduler
    >>> from adbench.engine.diffusion.schedule import cosine_schedule
    >>> denoiser = Denoiser(nn.Identity(), cosine_schedule())
    >>> apply_scheduler(denoiser, DEFAULT_CONFIG)
    >>> denoiser.schedule.name, denoiser.clip
    ('linear 1000 0.0001 0.02', (-1.0, 1.0))
    """
    if type(denoiser.process) is not Gaussian:
        raise CheckpointError(
            f"diffusers' schedulers are of Gaussian noise; this method's is {denoiser.process.name}"
        )
    denoiser.process = Gaussian(build_diffusers_schedule(config))
    denoiser.prediction_type = PREDICTIONS[config["prediction_type"]]
    reach = float(config["clip_sample_range"])
    denoiser.clip = (-reach, reach) if config["clip_sample"] else None


def describe_scheduler(denoiser: Denoiser) -> dict[str, Any]:
    """Return the configuration of a DDPMScheduler for a denoiser.

    Raises CheckpointError where no scheduler of diffusers computes the same.

    >>> from torch import nn
    >>> from adbench.engine.checkpoints.diffusers_scheduler import describe_scheduler
    >>> config = describe_scheduler(Denoiser(nn.Identity(), linear_schedule(), prediction_type="v"))
    >>> config["prediction_type"], config["beta_schedule"]
    ('v_prediction', 'linear')
    """
    if type(denoiser.process) is not Gaussian:
        raise CheckpointError(
            f"diffusers has no scheduler of a {denoiser.process.name} process, only Gaussian noise"
        )
    alpha_bar = denoiser.schedule.alpha_bar
    names = {value: key for key, value in PREDICTIONS.items()}
    reach = denoiser.clip
    if reach is not None and reach[0] != -reach[1]:
        reach = None  # a range such as 0..1: theirs are about 0
    config: dict[str, Any] = {
        "_class_name": "DDPMScheduler", "num_train_timesteps": denoiser.schedule.T,
        "prediction_type": names[denoiser.prediction_type], "clip_sample": reach is not None,
        "clip_sample_range": reach[1] if reach else 1.0, "timestep_spacing": "leading",
        "variance_type": "learned_range" if denoiser.learns_variance else "fixed_small",
    }  # fmt: skip
    name, *numbers = denoiser.schedule.name.split()
    if name in ("linear", "scaled_linear") and len(numbers) == 3:
        scale = 1000 / int(numbers[0])
        config |= {"beta_schedule": name, "beta_start": float(numbers[1]) * scale,
            "beta_end": float(numbers[2]) * scale}  # fmt: skip
    elif name == "cosine" and numbers[1:] == ["0.008"]:
        config["beta_schedule"] = "squaredcos_cap_v2"
    else:
        config["trained_betas"] = (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist()
    built = build_diffusers_schedule(DEFAULT_CONFIG | config)
    if not torch.allclose(built.alpha_bar, alpha_bar, rtol=1e-6, atol=1e-9):
        config["trained_betas"] = (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist()
    return config
