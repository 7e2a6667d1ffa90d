"""The settings of a noise schedule as methods group them."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.setting_types import Several
from .schedule import Schedule, ScheduleName, build_schedule


@dataclass(frozen=True)
class ScheduleConfig:
    """A noise schedule by name and length.

    T: number of levels.
    beta: its name: linear, linear_latent, scaled_linear, cosine or even.

    >>> ScheduleConfig(T=10).build().T
    10
    """

    T: Several = 1000
    beta: ScheduleName = "linear"

    def build(self) -> Schedule:
        """Return the schedule."""
        return build_schedule(self.beta, self.T)
