"""Runs of these tests stay in the test's own process, unless a test asks for another executor."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    if "ADBENCH_EXECUTOR" not in os.environ:
        monkeypatch.setenv("ADBENCH_EXECUTOR", "inline")
