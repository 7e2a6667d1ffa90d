"""Made-up data have the same bits on every CPU, whatever vector instructions it has.

The digests were seen with AVX2 and without; numpy's float32 functions differ between the two.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from adbench.datasets.transforms.quantisation import LEVELS, quantise

PROGRAM = """
import hashlib
from adbench.datasets.phantom import Phantom
from adbench.datasets.synthbrain.lesions import LesionPlan
from adbench.datasets.synthbrain.subject import ViewGrid, make_subject

view = ViewGrid((-4.0, 16.0), 32, 6.75)
for number in range(10):
    subject = make_subject(0, number, LesionPlan.for_index(number), view, "healthy_ref")
    print(hashlib.sha256(b"".join(array.tobytes() for array in subject)).hexdigest()[:8])
for shape in ((256,), (32, 32), (16, 16, 16)):
    samples = [*Phantom(shape=shape, test=8).test()]
    arrays = [each for sample in samples for each in (sample.x, sample.counterpart, sample.mask)]
    print(hashlib.sha256(b"".join(each.numpy().tobytes() for each in arrays)).hexdigest()[:8])
"""

DIGESTS = [
    "12dedce2",
    "7e08259b",
    "d00c8c6e",
    "34723684",
    "6999f5c0",
    "c5804a07",
    "dd6cf95d",
    "88241304",
    "05ed4b85",
    "1724b2f9",
    "53673fab",
    "bf237354",
    "2c96f697",
]


@pytest.mark.parametrize("without", ["", "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"])
def test_samples_do_not_depend_on_vector_instructions(without):
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": without, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == DIGESTS


def test_values_are_whole_levels_between_0_and_1():
    image = np.linspace(0, 1, 10_001)
    levels = quantise(image).astype(np.float64) * (LEVELS - 1)
    assert np.allclose(levels, np.rint(levels), atol=1e-3)
    assert np.abs(levels - image * (LEVELS - 1)).max() <= 0.501
    assert (quantise(image)[0], quantise(image)[-1]) == (0, 1)


def test_an_image_computed_in_single_precision_is_refused():
    with pytest.raises(TypeError, match="machine to machine"):
        quantise(np.zeros(3, np.float32))
