"""How fast simplex fields are made, against the compiled loop that AnoDDPM's authors have."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from .noise import Simplex
from .rng import Rng


def simplex_speed(
    device: str = "cpu", *, side: int = 256, batch: int = 16, rounds: int = 5
) -> dict[str, float]:
    """Milliseconds for one field of side x side and six octaves, ours made `batch` at a time.

    authors: opensimplex's own numba code, one array a wavelength and one seed a field, as the
    authors' takes it: on as many threads as torch has, if numba has so many
    ours: by this device; ratio: authors / ours; error: the largest difference between the two

    Medians of rounds taken in turn, so that what slows the machine slows both.
    """
    noise, level = Simplex(), torch.full((batch,), 251, device=device)
    rng = Rng([str(i) for i in range(batch)], device=device)
    shape = (1, side, side)

    def ours() -> None:
        noise(rng, shape, level)
        if device != "cpu":
            torch.cuda.synchronize()

    def authors() -> None:
        reference(Simplex(), 7, side, 250)

    ours()  # compilation
    authors()
    times: dict[str, list[float]] = {"authors": [], "ours": []}
    for _ in range(rounds):
        times["authors"].append(_seconds(authors))
        times["ours"].append(_seconds(ours) / batch)
    result = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
    same = Rng(["a"], device=device)
    seed = int(Rng(["a"]).seeds(1))
    theirs = reference(noise, seed, side, 250)
    apart = noise(same, shape, level[:1]).cpu().numpy()[0, 0] - theirs
    return result | {
        "ratio": result["authors"] / result["ours"],
        "error": float(np.abs(apart).max()),
    }


def reference(noise: Simplex, seed: int, side: int, t: float) -> NDArray[np.float64]:
    """(side, side): the octaves of `noise` added up, each by opensimplex."""
    from opensimplex import OpenSimplex

    generator, total = OpenSimplex(seed), np.zeros((side, side))
    for octave in range(noise.octaves):
        wavelength = noise.frequency / 2**octave
        axis = np.arange(side) / wavelength
        field = generator.noise3array(axis, axis, np.array([t / wavelength]))[0]
        total += noise.persistence**octave * field
    return total


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
