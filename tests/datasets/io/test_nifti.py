from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adbench.datasets.base import DataError
from adbench.datasets.io.nifti import read_labels, read_volume

SMALL = (7, 6, 5)
CODES = [
    "".join(ends)
    for axes in permutations(("LR", "PA", "SI"))
    for ends in product(*axes)
]  # fmt: skip
OBLIQUE = np.array([[-1.1, 0.1, 0, 40], [0.1, -0.9, 0.05, 60], [0, 0.05, 2.5, -30], [0, 0, 0, 1.0]])


def refused(path: Path, read=read_volume, **how) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **how)
    assert "\n" not in caught.value.summary and path.name in caught.value.summary
    return caught.value.summary


@pytest.fixture
def path(tmp_path, volumes) -> Path:
    return volumes.save(volumes.brain(0), tmp_path / "a_flair.nii.gz")


def test_a_volume_reads_as_nibabel_reads_it(path):
    volume, image = read_volume(path), nib.as_closest_canonical(nib.load(path))
    assert np.array_equal(volume.data, image.get_fdata()) and volume.data.dtype == np.float32
    assert np.array_equal(volume.affine, image.affine)
    assert (volume.axcodes, volume.spacing, volume.nans) == ("LPS", (1, 1, 1), 0)


@pytest.mark.parametrize("affine", [np.diag([-1, -1, 1, 1.0]), OBLIQUE], ids=["axial", "oblique"])
def test_however_the_axes_are_stored_the_volume_is_the_same(tmp_path, volumes, affine):
    array = np.random.default_rng(0).integers(0, 99, SMALL).astype(np.int16)
    labels = (array % 5).astype(np.uint8)
    want = read_volume(volumes.save(array, tmp_path / "first.nii.gz", affine))
    assert len(CODES) == 48
    for codes in CODES:
        turned, where = volumes.turned(array, codes, affine)
        volume = read_volume(volumes.save(turned, tmp_path / "image.nii.gz", where))
        assert volume.axcodes == codes
        assert np.array_equal(volume.data, want.data)
        assert np.allclose(volume.affine, want.affine, atol=1e-5)
        assert np.allclose(volume.spacing, want.spacing, atol=1e-5)
        turned, where = volumes.turned(labels, codes, affine)
        read = read_labels(volumes.save(turned, tmp_path / "labels.nii.gz", where))
        assert np.array_equal(read.data, want.data % 5)


def test_of_200_flipped_bytes_none_changes_a_voxel_silently(tmp_path):
    rng = np.random.default_rng(1)
    array = rng.integers(0, 1000, SMALL).astype(np.int16)
    path = tmp_path / "v.nii.gz"
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    raw, results = path.read_bytes(), 0
    for place in rng.permutation(len(raw))[:200]:
        flipped = bytearray(raw)
        flipped[place] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        try:
            read = read_volume(path)
        except DataError:
            results += 1
        else:
            assert np.array_equal(read.data, array), f"byte {place} changed voxels silently"
            assert np.array_equal(read.affine, np.eye(4))
    assert results > 150  # the rest are bytes that mean nothing: the file's name and time


def test_a_wrong_checksum_alone_is_found(path):
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)
    assert "corrupt" in refused(path)


def test_a_truncated_file_is_an_error_with_its_size(tmp_path):
    array = np.random.default_rng(0).integers(0, 1000, (24, 24, 16)).astype(np.int16)
    path = tmp_path / "v.nii.gz"
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    message = refused(path)
    assert "v.nii.gz is truncated (expected 18 432 bytes of voxels, found " in message
    results = int(message.split("found ")[1].rstrip(")").replace(" ", ""))
    assert 0.4 < results / 18_432 < 0.6
    for size in range(1, len(raw), 97):
        path.write_bytes(raw[:size])
        refused(path)
    path.write_bytes(raw[:-1])  # every voxel is there, half the checksum is not
    assert "truncated" in refused(path)


def test_a_truncated_plain_file_is_found(tmp_path, volumes):
    path = volumes.save(volumes.brain(0), tmp_path / "v.nii")
    path.write_bytes(path.read_bytes()[:-100])
    assert "expected 18 432 bytes of voxels, found 18 332" in refused(path)
    path.write_bytes(path.read_bytes() + bytes(500))
    assert "does not fit its header" in refused(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML"),
        (b"\n<html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git-lfs"),
        (b"PK\3\4 and so on", "zip"),
        (b"hello", "hello"),
    ],
)
@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii"])
def test_what_is_no_volume_is_named(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    assert says in refused(path)


def test_a_name_that_lies_about_compression_is_found(tmp_path, volumes, path):
    plain = tmp_path / "b.nii.gz"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert "uncompressed NIfTI" in refused(plain)
    packed = tmp_path / "b.nii"
    packed.write_bytes(path.read_bytes())
    assert "rename it to b.nii.gz" in refused(packed)


@pytest.mark.parametrize("name", ["v.NII.GZ", "v.Nii.gz", "v.nii.GZ", "v.NII"])
def test_upper_case_names_are_read_like_lower_case_ones(tmp_path, path, name):
    raw = path.read_bytes()
    upper = tmp_path / name
    upper.write_bytes(raw if name.lower().endswith(".gz") else gzip.decompress(raw))
    assert np.array_equal(read_volume(upper).data, read_volume(path).data)


@pytest.mark.parametrize("name", ["v.NII.GZ", "v.nii.gz"])
def test_the_remedies_for_a_lying_name_leave_it_as_it_was(tmp_path, path, name):
    """Renamed alone, a layout that knows .nii.gz only would no longer see it."""
    plain = tmp_path / name
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert f"rename it to {name[:-3]}, and compress that: gzip {name[:-3]}" in refused(plain)
    packed = tmp_path / "w.NII"
    packed.write_bytes(path.read_bytes())
    assert "rename it to w.NII.gz, and unpack that (gunzip w.NII.gz)" in refused(packed)


def bomb(shape: tuple[int, ...], size: int, offset: float = 352.0) -> bytes:
    """A .nii.gz of a header, and so many zeros behind it."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1", offset
    packer, block = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    body = [packer.compress(header.binaryblock + bytes(4))]
    body += [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*body, packer.compress(bytes(size % (1 << 20))), packer.flush()])


@pytest.mark.parametrize(
    ("shape", "offset", "says"),
    [
        ((1024, 1024, 512), 352, "declares 512 MiB of voxels in a file of"),
        ((8, 8, 8), 1 << 29, "declares 512 MiB of voxels in a file of"),
        ((8, 8, 8), 352, "its header declares 512 bytes of voxels, it has more"),
    ],
)
def test_what_unpacks_to_far_more_than_it_holds_is_not_unpacked(tmp_path, shape, offset, says):
    path = tmp_path / "v.nii.gz"
    path.write_bytes(bomb(shape, 64 << 20, offset))
    tracemalloc.start()
    message = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert says in message and peak < 4 << 20


def test_labels_of_a_large_volume_may_be_all_zero(tmp_path, monkeypatch):
    shape = (1024, 1024, 20)
    path = tmp_path / "v.nii.gz"
    path.write_bytes(bomb(shape, 1024 * 1024 * 20))
    monkeypatch.setattr("adbench.datasets.io.decompression.ALWAYS_ALLOWED", 16 << 20)
    assert "declares 20 MiB" in refused(path)
    labels = read_labels(path, reorient=False, expected_voxels=1024 * 1024 * 20)
    assert labels.data.shape == shape and not labels.data.any()


def test_gzip_of_something_else_is_refused(path):
    path.write_bytes(gzip.compress(b"no header at all" * 99))
    assert "no NIfTI" in refused(path)
    path.write_bytes(gzip.compress(b"short"))
    refused(path)


def test_gzip_members_are_joined_and_strange_bytes_refused(path):
    want, plain = read_volume(path).data, gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]) + bytes(16))
    assert np.array_equal(read_volume(path).data, want)
    path.write_bytes(path.read_bytes() + b"strange")
    assert "strange bytes" in refused(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "<f8", "|u1", ">u4"])
def test_any_byte_order_reads_alike(tmp_path, kind, dtype):
    array = np.random.default_rng(0).integers(0, 200, SMALL)
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    image = kind(array.astype(dtype), np.eye(4), header)
    nib.save(image, tmp_path / "v.nii.gz")
    start = gzip.decompress((tmp_path / "v.nii.gz").read_bytes())[:4]
    assert (start == struct.pack(">i", header.sizeof_hdr)) == (dtype[0] == ">")
    volume = read_volume(tmp_path / "v.nii.gz")
    assert np.array_equal(volume.data, array)
    assert volume.data.dtype.isnative and volume.data.dtype == np.float32


def test_slope_and_intercept_are_applied_to_images(tmp_path):
    array = np.random.default_rng(0).integers(-50, 200, SMALL).astype(np.int16)
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    path = _save_stored(image, array, tmp_path / "v.nii.gz")
    assert np.allclose(read_volume(path).data, array * 0.5 + 10)


def test_nan_and_inf_are_counted(tmp_path, volumes):
    array = volumes.brain(0).astype(np.float32)
    array[3:5, 4, 5] = np.nan
    path = volumes.save(array, tmp_path / "v.nii.gz")
    assert "2 NaN voxels" in refused(path)
    volume = read_volume(path, nan="zero")
    assert volume.nans == 2 and np.isfinite(volume.data).all()
    array[9, 9, 9] = -np.inf
    path = volumes.save(array, tmp_path / "v.nii.gz")
    for nan in ("error", "zero"):
        assert "1 infinite voxel" in refused(path, nan=nan)


def test_singleton_axes_are_squeezed_and_others_refused(tmp_path, volumes):
    array = volumes.brain(0)
    want = read_volume(volumes.save(array, tmp_path / "v.nii.gz"))
    for shape in ((*array.shape, 1), (*array.shape, 1, 1)):
        read = read_volume(volumes.save(array.reshape(shape), tmp_path / "w.nii.gz"))
        assert np.array_equal(read.data, want.data)
    flat = read_volume(volumes.save(array[:, :, 8], tmp_path / "flat.nii.gz"))
    assert np.array_equal(flat.data, want.data[:, :, 8:9])
    path = volumes.save(np.stack([array, array], -1), tmp_path / "four.nii.gz")
    assert "(24, 24, 16, 2)" in refused(path)


def test_one_channel_of_four_axes_can_be_taken(tmp_path, volumes):
    array = np.stack([volumes.brain(seed) for seed in range(3)], -1)
    path = volumes.save(array, tmp_path / "four.nii.gz")
    for channel in range(3):
        one = volumes.save(array[..., channel], tmp_path / f"{channel}.nii.gz")
        want = read_volume(one).data
        assert np.array_equal(read_volume(path, channel=channel).data, want)
        assert np.array_equal(read_volume(one, channel=5).data, want)  # it has no fourth axis
    assert "has 3 channels; channel=3" in refused(path, channel=3)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPR"])
def test_axes_can_be_left_as_they_are_stored(tmp_path, volumes, codes):
    turned, where = volumes.turned(volumes.tumour(), codes, np.diag([-1, -1, 2, 1.0]))
    path = volumes.save(turned, tmp_path / "v.nii.gz", where)
    volume, labels = read_volume(path, reorient=False), read_labels(path, reorient=False)
    assert np.array_equal(volume.data, turned) and np.array_equal(labels.data, turned)
    assert np.array_equal(volume.affine, where) and volume.axcodes == codes
    assert volume.spacing == tuple(2.0 if code == "S" else 1.0 for code in codes)


REAL = Path(nib.__file__).parent / "tests/data"


@pytest.mark.parametrize(
    ("name", "shape", "channel"),
    [
        ("anatomical.nii", (33, 41, 25), None),  # big-endian, of nibabel's own tests
        ("reoriented_anat_moved.nii", None, None),
        ("standard.nii.gz", None, None),
        ("example4d.nii.gz", None, 1),
        ("functional.nii", None, 2),
    ],
)
def test_files_of_other_programs_read_as_nibabel_reads_them(name, shape, channel):
    volume = read_volume(REAL / name, channel=channel)
    image = nib.as_closest_canonical(nib.Nifti1Image.from_filename(REAL / name))
    want = np.asarray(image.dataobj)
    want = want if channel is None else want[..., channel]
    assert np.array_equal(volume.data, want.squeeze().astype(np.float32))
    assert shape is None or volume.data.shape == shape
    assert np.allclose(volume.affine, image.affine)


def test_a_nifti_2_file_of_another_program_is_read():
    image = nib.Nifti2Image.from_filename(REAL / "example_nifti2.nii.gz")
    four = np.asarray(nib.as_closest_canonical(image).dataobj)
    volume = read_volume(REAL / "example_nifti2.nii.gz", channel=0)
    assert np.array_equal(volume.data, four[..., 0].astype(np.float32))
    assert "a volume has three axes" in refused(REAL / "example_nifti2.nii.gz")


def test_units_other_than_mm_are_converted(tmp_path):
    image = nib.Nifti1Image(np.ones(SMALL, np.int16), np.diag([500, 250, 1000, 1.0]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "v.nii.gz")
    assert read_volume(tmp_path / "v.nii.gz").spacing == (0.5, 0.25, 1.0)


def test_voxels_that_are_no_numbers_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.ones(SMALL, np.complex64), np.eye(4)), tmp_path / "v.nii.gz")
    assert "complex64" in refused(tmp_path / "v.nii.gz")


def test_an_affine_that_places_nothing_is_refused(tmp_path):
    image = nib.Nifti1Image(np.ones(SMALL, np.int16), None)
    image.header["sform_code"] = 1
    nib.save(image, tmp_path / "v.nii.gz")
    assert "affine" in refused(tmp_path / "v.nii.gz")


def test_a_given_affine_is_believed(tmp_path, volumes):
    array = volumes.brain(0)
    want = read_volume(volumes.save(array, tmp_path / "lps.nii.gz"))
    path = volumes.save(array, tmp_path / "lost.nii.gz", np.eye(4))
    assert not np.array_equal(read_volume(path).data, want.data)
    assert np.array_equal(read_volume(path, affine=want.stored_affine).data, want.data)


def test_errors_use_the_name_they_are_given(path):
    path.write_bytes(b"")
    with pytest.raises(DataError, match="case/A is empty"):
        read_volume(path, name="case/A")
    assert "No such file" in refused(path.with_name("none.nii.gz"))


def _save_stored(image: nib.Nifti1Image, stored: np.ndarray, path: Path) -> Path:
    """With the header's slope, but voxels as they are: saving through nibabel would divide."""
    header = image.header.copy()
    header["vox_offset"], header["magic"] = 352, b"n+1"
    raw = header.binaryblock + bytes(4) + stored.tobytes(order="F")
    path.write_bytes(gzip.compress(raw))
    return path


def _labels(volumes, path: Path, stored: np.ndarray, slope: float = 1, inter: float = 0) -> Path:
    image = nib.Nifti1Image(stored, volumes.LPS)
    image.header.set_slope_inter(slope, inter)
    return _save_stored(image, stored, path)


@pytest.mark.parametrize("slope", [0.5, 2, -1])
def test_labels_are_the_stored_numbers_whatever_the_slope(tmp_path, volumes, slope):
    want = read_labels(volumes.save(volumes.tumour(), tmp_path / "seg.nii.gz"))
    path = _labels(volumes, tmp_path / "seg2.nii.gz", volumes.tumour(), slope)
    assert np.array_equal(read_labels(path).data, want.data) and want.data.dtype == np.uint8


def test_labels_scaled_by_their_writer_are_unscaled(tmp_path, volumes):
    seg = volumes.tumour()
    want = read_labels(volumes.save(seg, tmp_path / "seg.nii.gz"))
    path = _labels(volumes, tmp_path / "seg2.nii.gz", seg.astype(np.int16) * 100, 0.01)
    assert np.array_equal(read_labels(path).data, want.data)


def test_labels_that_can_be_read_two_ways_are_refused(tmp_path, volumes):
    seg = (volumes.tumour() > 0).astype(np.uint8)
    path = _labels(volumes, tmp_path / "seg.nii.gz", seg, 1, 1)  # {0, 1} or {1, 2}?
    assert "stored and its scaled values are both labels" in refused(path, read_labels)
    path = _labels(volumes, tmp_path / "seg.nii.gz", seg * 50, 0.5)
    message = refused(path, read_labels)
    assert "50 (" in message and "25 (" in message and "slope 0.5" in message


def test_labels_of_almost_whole_numbers_are_rounded(tmp_path, volumes):
    seg = volumes.tumour()
    want = read_labels(volumes.save(seg, tmp_path / "seg.nii.gz")).data
    path = volumes.save((seg * 0.9999).astype(np.float32), tmp_path / "seg.nii.gz")
    assert np.array_equal(read_labels(path).data, want)
    path = volumes.save((seg * 0.9).astype(np.float32), tmp_path / "seg.nii.gz")
    assert f"{(seg > 0).sum()} voxels that are no whole numbers" in refused(path, read_labels)
    lost = seg.astype(np.float32)
    lost[0, 0, 0] = np.nan
    assert "1 voxel that" in refused(volumes.save(lost, tmp_path / "seg.nii.gz"), read_labels)


def test_strange_labels_are_listed_with_their_counts(tmp_path, volumes):
    seg = volumes.tumour()
    seg[0, 0, :3], seg[1, 1, 1] = 7, 255
    path = volumes.save(seg, tmp_path / "seg.nii.gz")
    message = refused(path, read_labels)
    assert "7 (3 voxels), 255 (1 voxel)" in message and "[0, 1, 2, 3, 4]" in message
    assert "2 (" in refused(path, read_labels, allowed={0, 1, 4, 7, 255})
    read_labels(path, allowed={0, 1, 2, 4, 7, 255})


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    codes=st.sampled_from(CODES),
    dtype=st.sampled_from(["<i2", ">i2", "|u1", ">f4"]),
)
def test_any_small_volume_comes_back(tmp_path, volumes, shape, codes, dtype):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    turned, where = volumes.turned(array, codes, np.eye(4))
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(turned, where, header), tmp_path / "v.nii.gz")
    volume = read_volume(tmp_path / "v.nii.gz")
    assert np.array_equal(volume.data, array)
    assert np.array_equal(volume.affine, np.eye(4))
