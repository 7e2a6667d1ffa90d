"""The tissue maps that SynthBrain starts from: loading them, and how they were made.

`python -m adbench.datasets.synthbrain.tissue_maps` makes the asset again from the ICBM152 2009a
symmetric maps in nilearn 0.14.1, which is needed for nothing else. © the Montreal Neurological
Institute; see assets/LICENSE.icbm152.
"""

from __future__ import annotations

import importlib.util
import io
import lzma
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ASSET = Path(__file__).parent / "assets" / "icbm152_tissue_2mm.npz.xz"
VOXEL_MM = 2.0  # mm per voxel
MAX_LEVEL = 63  # the integer that stands for certainty: 6 bits a voxel


class Template(NamedTuple):
    """Tissue probabilities of the template.

    tissue: (4, Z, Y, X) float32, probability of CSF, cortex, white matter, deep grey matter
    brain: (Z, Y, X) float32, 1 within the skull
    origin: of voxel (0, 0, 0) in mm, (z, y, x) in MNI space, RAS

    >>> template = load_template()
    >>> np.array_equal(template.tissue, template.tissue[..., ::-1])  # its own mirror image
    True
    """

    tissue: NDArray[np.float32]
    brain: NDArray[np.float32]
    origin: NDArray[np.float32]


@cache
def load_template() -> Template:
    """Return the template, read once per process.

    >>> load_template().tissue.shape[0]
    4
    """
    with lzma.open(ASSET) as file:
        arrays = np.load(io.BytesIO(file.read()), allow_pickle=False)
        half = arrays["maps"].astype(np.float32) / MAX_LEVEL  # the half x >= 0
        origin = arrays["origin"]
    grey, white, deep, brain = (np.concatenate([m[..., :0:-1], m], -1) for m in half)
    fluid = np.clip(brain - grey - white - deep, 0, 1)
    return Template(np.stack([fluid, grey, white, deep]), brain, origin)


def make_asset(target: Path = ASSET) -> None:
    """Write the asset: average the 1 mm maps to 2 mm, quantise to 6 bits, separate deep grey
    matter.

    target: of the file

    Deep grey matter is what lies more than about 26 mm below the surface of the brain. The template
    is its own mirror image, so that one half is stored.

    >>> from unittest.mock import patch
    >>> with patch("importlib.util.find_spec", return_value=None):  # without nilearn
    ...     make_asset(Path("asset.npz.xz"))
    Traceback (most recent call last):
    RuntimeError: the maps come with nilearn 0.14.1: pip install nilearn==0.14.1
    """
    grey, white, t1, affine = _load_source_maps()
    brain = np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(t1 > 0)), np.float32)
    deep = grey / (1 + np.exp(-(distance_to_outside(brain > 0) - 26) / 2))
    maps = np.stack([grey - deep, white, deep, brain]).transpose(0, 3, 2, 1)  # RAS -> z, y, x
    smooth = np.stack([ndimage.gaussian_filter(m, 0.8) for m in maps])[:, ::2, ::2, ::2]
    if not np.array_equal(smooth, smooth[..., ::-1]):
        raise RuntimeError("the template is not symmetric: half of it would not do")
    smooth = smooth[..., smooth.shape[-1] // 2 :]
    inside = smooth[3] > 0.02
    z, y, x = (
        np.flatnonzero(inside.any(axis=other_axes)) for other_axes in ((1, 2), (0, 2), (0, 1))
    )
    low = [max(z[0] - 1, 0), max(y[0] - 1, 0)]
    box = np.s_[:, low[0] : z[-1] + 2, low[1] : y[-1] + 2, : x[-1] + 2]
    corner = np.array([*low, -(x[-1] + 1)])
    origin = np.array([affine[2, 3], affine[1, 3], 0]) + VOXEL_MM * corner
    buffer = io.BytesIO()
    np.savez(
        buffer,
        maps=np.rint(smooth[box] * MAX_LEVEL).astype(np.uint8),
        origin=origin.astype(np.float32),
    )
    target.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def distance_to_outside(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each voxel to the nearest one that is not inside, in voxels.

    inside: bool, any number of axes

    >>> distance_to_outside(np.array([False, True, True])).tolist()
    [0.0, 1.0, 2.0]
    """
    return np.asarray(ndimage.distance_transform_edt(inside), np.float64)


def _load_source_maps() -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return grey matter, white matter (0 to 1), T1 and the affine, 1 mm, axes x, y, z."""
    import nibabel  # only here: the asset is made once

    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise RuntimeError("the maps come with nilearn 0.14.1: pip install nilearn==0.14.1")
    folder = Path(spec.origin).parent / "datasets" / "data"
    names = (f"mni_icbm152_{k}_tal_nlin_sym_09a_converted.nii.gz" for k in ("gm", "wm", "t1"))
    images = [nibabel.Nifti1Image.from_filename(folder / name) for name in names]
    grey, white, t1 = (np.asarray(image.dataobj).astype(np.float32) for image in images)
    affine = images[0].affine
    if affine is None or not np.allclose(np.diag(affine), 1):
        raise RuntimeError(f"expected a 1 mm RAS template, found the affine {affine}")
    return grey / 255, white / 255, t1, affine


if __name__ == "__main__":
    make_asset()
