"""What `--slurm` takes: KEY=VALUE or METHOD.KEY=VALUE, for submitit or for sbatch as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...engine.runtime.setting_types import Count, Natural
from ..registry.setting_types import convert_setting, explain_refusal

DEFAULTS: dict[str, Any] = {"time": 240, "cpus_per_task": 4, "job_name": "adbench"}
"""time: minutes, after which a job is requeued and goes on"""

SUBMITIT_TYPES: dict[str, Any] = {
    "cpus_per_task": Count,
    "gpus_per_node": Natural,
    "job_name": str,
    "array_parallelism": Count,
    "signal_delay_s": Natural,
}
"""Options that submitit takes by name, and their types; cpus and gpus are short for two of them."""

KEY_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""Names of options; each becomes a line of the script for sbatch."""

CONTROL_PATTERN = re.compile("[\\x00-\\x1f\\x7f\\x85\\u2028\\u2029]")
"""Characters that would end a line of the script for sbatch, or break it."""

DURATION_PATTERN = re.compile(r"(?:(?P<d>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?")


def options_by_method(options: Sequence[str]) -> dict[str, list[str]]:
    """Return options as KEY=VALUE, by the method of METHOD.KEY=VALUE; "" for those without.

    >>> from adbench.benchmark.executors.slurm_options import options_by_method
    >>> options_by_method(["partition=gpu,ldm.mem=64G"])
    {'': ['partition=gpu'], 'ldm': ['mem=64G']}
    """
    by_method: dict[str, list[str]] = {}
    for option in _split_options(options):
        key, equals, value = option.partition("=")
        method, _, key = key.strip(" ").rpartition(".")
        by_method.setdefault(method, []).append(f"{key}{equals}{value}")
    return by_method


def _split_options(options: Sequence[str]) -> list[str]:
    return [part for option in options for part in option.split(",") if part]


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Return KEY=VALUE options as the parameters of submitit; those it does not know go to sbatch
    as they are. time is in minutes, or as Slurm writes it.

    Raises ValueError on what is no KEY=VALUE, or no line of a script can hold.

    >>> from adbench.benchmark.executors.slurm_options import parse_options
    >>> parse_options(["partition=gpu,time=1:00:00"])
    {'time': 60, 'additional_parameters': {'partition': 'gpu'}}
    """
    parameters: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for option in _split_options(options):
        key, equals, value = option.partition("=")
        key = key.strip(" ").lstrip("-").replace("-", "_")
        if not equals or not KEY_PATTERN.fullmatch(key):
            raise ValueError(
                f"--slurm takes KEY=VALUE, such as partition=gpu,gpus=1, not {option!r}"
            )
        if CONTROL_PATTERN.search(value):
            raise ValueError(f"--slurm {key} takes no control characters, not {value!r}")
        key = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}.get(key, key)
        if key == "time":
            parameters[key] = parse_minutes(value)
        elif key in SUBMITIT_TYPES:
            parameters[key] = _convert_option(key, value)
        else:
            more[key.replace("_", "-")] = value
    return parameters | ({"additional_parameters": more} if more else {})


def _convert_option(key: str, value: str) -> Any:
    try:
        return convert_setting(value, SUBMITIT_TYPES[key])
    except ValueError:
        reason = explain_refusal(value, SUBMITIT_TYPES[key], DEFAULTS.get(key))
        raise ValueError(f"--slurm {key} is {reason}") from None


def parse_minutes(text: str) -> int:
    """Return the minutes of a duration as sbatch reads it, rounded up. Raises ValueError on a text
    that is none.

    >>> from adbench.benchmark.executors.slurm_options import parse_minutes
    >>> parse_minutes("90"), parse_minutes("1:30:00"), parse_minutes("1-12")
    (90, 90, 2160)
    """
    match = DURATION_PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"--slurm time is in minutes or as D-HH:MM:SS, not {text!r}")
    parts = [int(match[key] or 0) for key in "abc"]
    if match["d"] is not None:
        hours, mins, seconds = parts
        hours += 24 * int(match["d"])
    elif match["c"] is not None:
        hours, mins, seconds = parts
    else:
        hours, (mins, seconds, _) = 0, parts
    return 60 * hours + mins + (seconds > 0)
