"""Smaller trainings for tests of methods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def few_calibration_rows() -> Iterator[None]:
    """The calibration loss on one batch of rows, not eight: trainings of three steps spend most
    of their time on it. Tests of the selection measure several."""
    from adbench.engine.training import selection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "CALIBRATION_ROWS", selection.ROWS_AT_A_TIME)
        yield
