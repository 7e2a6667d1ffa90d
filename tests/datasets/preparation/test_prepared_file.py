from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import json
import multiprocessing
import os
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adbench.datasets.base import DataError, Sample, Spec, content_hash, manifest
from adbench.datasets.io.file_hashes import cache_root, hash_files
from adbench.datasets.preparation.prepared_file import (
    PreparedSplit,
    concatenate,
    find_prepared,
    prepare_once,
    read_part,
)
from adbench.datasets.preparation.writer import SampleWriter

pytestmark = pytest.mark.usefixtures("cache")
SPEC = Spec(channels=2, shape=(5, 4))
WHO = {"files": {"a": "00ff"}, "size": 5, "fractions": (0.5, 0.5), "none": None}
fork = multiprocessing.get_context("fork")


def sample(number: int, has: str = "mask roi", spec: Spec = SPEC) -> Sample:
    draw = torch.Generator().manual_seed(number)
    shape = (spec.channels, *spec.shape)
    return Sample(
        x=torch.randn(shape, generator=draw),
        key=f"patient-{number}/z",
        group=f"patient-{number}",
        label=bool(number % 2),
        mask=torch.rand(spec.shape, generator=draw) > 0.5 if "mask" in has else None,
        roi=torch.rand(spec.shape, generator=draw) > 0.5 if "roi" in has else None,
        spacing=(0.1 * number, 1.0) if "spacing" in has else None,
        tags={"lesion": "størke", "contrast": "0.6"} if "tags" in has else {},
        counterpart=torch.randn(shape, generator=draw) if "counterpart" in has else None,
    )


def write(parts: dict[str, list[Sample]], spec: Spec = SPEC, **who: object) -> Path:
    def make(writer: SampleWriter) -> None:
        for part, samples in parts.items():
            for each in samples:
                writer.add(part, each)

    return prepare_once("toy", {**WHO, **who}, make, spec=spec)


def never(writer: SampleWriter) -> None:
    raise AssertionError("written a second time")


def alike(one: Sample, other: Sample) -> bool:
    def same(a, b):
        return (a is None) == (b is None) and (a is None or (a.dtype == b.dtype and a.equal(b)))

    small = ("key", "group", "label", "spacing", "tags")
    return all(getattr(one, name) == getattr(other, name) for name in small) and all(
        same(getattr(one, name), getattr(other, name))
        for name in ("x", "mask", "roi", "counterpart")
    )


FIELDS = ("mask", "roi", "spacing", "tags", "counterpart")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sets(st.sampled_from(FIELDS)), min_size=1, max_size=6),
    st.sampled_from([(7,), (3, 4), (2, 3, 4)]),
)
def test_samples_come_back_bit_for_bit(has, shape):
    spec = Spec(1, shape)
    samples = [sample(number, " ".join(fields), spec) for number, fields in enumerate(has)]
    samples = [replace(s, spacing=s.spacing and s.spacing[:1]) for s in samples]
    path = write({"test": samples}, spec, has=[sorted(f) for f in has], shape=shape)
    read = read_part(path, "test")
    assert len(read) == len(samples)
    assert all(alike(a, b) for a, b in zip(samples, read, strict=True))
    assert [e.content_hash for e in read.manifest()] == [content_hash(s) for s in samples]


def test_what_is_no_plain_tensor_is_stored_as_it_will_be_read():
    inputs = sample(1)
    assert inputs.mask is not None
    odd: dict[str, Any] = {"label": 1, "spacing": [np.float32(0.5), 2], "mask": inputs.mask.byte()}
    x = inputs.x.double().requires_grad_()
    read = read_part(write({"val": [replace(inputs, x=x, **odd)]}), "val")
    assert alike(read[0], replace(inputs, spacing=(0.5, 2.0)))
    assert read.manifest()[0].content_hash == content_hash(read[0])


def test_training_parts_show_no_mask_and_say_so_in_their_manifest():
    path = write({"train": [sample(1, "mask twin roi"), sample(2, "")]})
    shown, hidden = read_part(path, "train"), read_part(path, "train", masks=False)
    assert hidden[0].mask is None and hidden[0].counterpart is None and hidden[0].roi is not None
    assert shown[0].mask is not None
    assert [e.content_hash for e in manifest(hidden)] == [content_hash(s) for s in hidden]
    assert manifest(hidden)[0] != manifest(shown)[0] and manifest(hidden)[1] == manifest(shown)[1]


def test_a_part_is_a_sequence():
    samples = [sample(n) for n in range(4)]
    path = write({"train": samples[:3], "test": samples[3:]})
    part = read_part(path, "train")
    assert [s.key for s in part] == [s.key for s in samples[:3]]
    assert part[-1].key == samples[2].key
    for index in (3, -4):
        with pytest.raises(IndexError):
            part[index]
    nothing = read_part(path, "val")
    assert len(nothing) == 0 and nothing.manifest() == [] and list(nothing) == []


def test_joined_splits_are_one():
    samples = [sample(n) for n in range(5)]
    path = write({"train": samples[:2], "train-abnormal": samples[2:4]})
    both = concatenate(
        read_part(path, "train"), [], read_part(path, "none"), read_part(path, "train-abnormal"),
        samples[4:],
    )  # fmt: skip
    assert len(both) == 5
    assert all(alike(both[n], samples[n]) for n in range(5)) and alike(both[-1], samples[4])
    assert manifest(both) == manifest(samples)
    assert len(concatenate()) == 0
    with pytest.raises(IndexError):
        both[5]


def test_a_file_is_prepared_once_and_looked_up_by_what_it_depends_on(cache):
    path = write({"test": [sample(1)]})
    assert path.parent == cache == cache_root() / "data"
    assert path.name.startswith("toy-") and len(path.stem) == len("toy-") + 16
    assert prepare_once("toy", dict(reversed(WHO.items())), never, spec=SPEC) == path
    assert find_prepared("toy", WHO) == path
    assert find_prepared("toy", {**WHO, "size": 6}) is None
    assert find_prepared("other", WHO) is None
    with h5py.File(path) as file:
        stored = np.asarray(file["identity"]).tobytes()
    assert json.loads(stored) == json.loads(json.dumps(WHO))


@pytest.mark.parametrize("error", [DataError("bad"), OSError(28, "no space"), KeyboardInterrupt()])
def test_if_making_fails_nothing_stays_behind(cache, error):
    def make(writer: SampleWriter) -> None:
        writer.add("test", sample(1))
        raise error

    with pytest.raises(type(error)):
        prepare_once("toy", WHO, make, spec=SPEC)
    assert [p.name for p in cache.iterdir() if p.suffix != ".lock"] == []
    assert find_prepared("toy", WHO) is None
    write({"test": [sample(1)]})


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(cache):
    def make(writer: SampleWriter) -> None:
        writer.add("test", sample(1))
        os._exit(9)

    process = fork.Process(target=prepare_once, args=("toy", WHO, make), kwargs={"spec": SPEC})
    process.start()
    process.join()
    assert process.exitcode == 9
    assert find_prepared("toy", WHO) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write({"test": [sample(2)]})
    assert read_part(path, "test")[0].key == sample(2).key
    assert sorted(p.suffix for p in cache.iterdir() if p.suffix != ".lock") == [".h5"]


UNITS = range(6)
EXAMPLES = itertools.count()


def patient(number: int) -> list[Sample]:
    """The samples of one unit, two splits in turn."""
    return [
        replace(sample(10 * number + i, "mask twin"), key=f"p{number}/{i}", group=f"p{number}")
        for i in range(3)
    ]


def make_units(writer: SampleWriter, *, stop_before: int | None = None, written: list[int]) -> None:
    for number in UNITS:
        if writer.has_unit(f"p{number}"):
            continue
        for index, one in enumerate(patient(number)):
            writer.add(("train", "test")[number % 2], one)
            if stop_before == number and index == 1:
                raise KeyboardInterrupt
        writer.finish_unit(f"p{number}")
        written.append(number)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(UNITS), max_size=3), st.sampled_from([1, 300, 10**9]))
def test_an_interrupted_preparation_goes_on_behind_its_last_whole_unit(stops, shard):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("adbench.datasets.preparation.writer.SHARD_BYTES", shard)
        who = {**WHO, "stops": stops, "shard": shard}
        written: list[int] = []
        for stop in stops:
            with contextlib.suppress(KeyboardInterrupt):
                prepare_once(
                    "toy", who, partial(make_units, stop_before=stop, written=written), spec=SPEC
                )
        path = prepare_once("toy", who, partial(make_units, written=written), spec=SPEC)
    assert written == list(UNITS)  # each once, whatever was interrupted
    for part, numbers in (("train", UNITS[::2]), ("test", UNITS[1::2])):
        want = [one for number in numbers for one in patient(number)]
        read = read_part(path, part)
        assert all(alike(a, b) for a, b in zip(want, read, strict=True))
        assert [e.content_hash for e in read.manifest()] == [content_hash(s) for s in want]
    assert sorted(p.suffix for p in path.parent.iterdir() if path.stem in p.name) == [
        ".h5",
        ".lock",
    ]


def test_a_killed_preparation_goes_on_and_a_spoilt_shard_is_written_again(cache, monkeypatch):
    monkeypatch.setattr("adbench.datasets.preparation.writer.SHARD_BYTES", 1)

    def make(writer: SampleWriter) -> None:
        for number in UNITS[:4]:
            for one in patient(number):
                writer.add("test", one)
            writer.finish_unit(f"p{number}")
        writer.add("test", patient(4)[0])
        os._exit(9)

    process = fork.Process(target=prepare_once, args=("toy", WHO, make), kwargs={"spec": SPEC})
    process.start()
    process.join()
    shards = sorted(next(cache.glob("*.parts")).glob("*.h5"))
    assert len(shards) == 4
    shards[2].write_bytes(shards[2].read_bytes()[:-300])
    written: list[int] = []
    path = prepare_once("toy", WHO, partial(make_units, written=written), spec=SPEC)
    assert written == [2, 3, 4, 5]
    assert len(read_part(path, "test")) == 6 + 6 and len(read_part(path, "train")) == 2 * 3


def test_a_leak_is_let_through_only_where_it_is_asked_for():
    def make(writer: SampleWriter) -> None:
        writer.add("train", sample(1))
        writer.add("test", replace(sample(2), group=sample(1).group))

    with pytest.raises(DataError, match="is in two splits"):
        prepare_once("toy", WHO, make, spec=SPEC)
    path = prepare_once("toy", WHO, make, spec=SPEC, leaky=True)
    assert read_part(path, "train")[0].group == read_part(path, "test")[0].group


def test_of_several_processes_one_makes_and_the_others_wait(tmp_path):
    log = tmp_path / "log"

    def make(writer: SampleWriter) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        for number in range(20):
            writer.add("test", sample(number))
            time.sleep(0.01)

    def work() -> None:
        path = prepare_once("toy", WHO, make, spec=SPEC)
        os._exit(0 if len(read_part(path, "test")) == 20 else 1)

    processes = [fork.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0] * 4
    assert len(log.read_text().split()) == 1


def test_a_forked_child_reads_beside_its_parent():
    samples = [sample(n) for n in range(8)]
    part = read_part(write({"test": samples}), "test")
    assert alike(part[0], samples[0])  # the parent has the file open

    def work() -> None:
        good = all(alike(a, b) for a, b in zip(part, samples, strict=True))
        os._exit(0 if good else 1)

    children = [fork.Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    assert all(alike(a, b) for a, b in zip(part, samples, strict=True))
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]


def test_an_open_part_can_be_sent_to_a_loader():
    part = read_part(write({"test": [sample(1)]}), "test", masks=False)
    part[0]
    copied = copy.deepcopy(part)  # by the same protocol as a spawned worker's arguments
    assert (
        isinstance(copied, PreparedSplit) and alike(copied[0], part[0]) and copied[0].mask is None
    )


def test_no_flipped_bit_is_read_as_data(cache):
    samples = [sample(n, "mask roi twin spacing tags") for n in range(4)]
    path = write({"train": samples[:2], "test": samples[2:]})
    raw, rng, results = path.read_bytes(), np.random.default_rng(0), 0
    copied = cache / "flipped.h5"
    for place in rng.integers(0, len(raw), 250):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(rng.integers(8))
        copied.write_bytes(flipped)
        try:
            read = [*read_part(copied, "train"), *read_part(copied, "test")]
        except DataError as error:
            results += 1
            assert "flipped.h5" in error.summary and "Delete" in error.summary
        else:
            assert all(alike(a, b) for a, b in zip(samples, read, strict=True)), place
    assert results > 125  # the rest is room that HDF5 keeps and does not use


def _spoil(path: Path, name: str, index: int) -> None:
    """Flip a byte in the voxels of one sample."""
    with h5py.File(path) as file:
        stored = file[name]
        assert isinstance(stored, h5py.Dataset)
        place = stored.id.get_chunk_info(index).byte_offset
    assert place is not None
    raw = bytearray(path.read_bytes())
    raw[place + 3] ^= 64
    path.write_bytes(raw)


def test_a_spoilt_sample_is_found_when_it_is_read_and_the_others_still_can_be():
    samples = [sample(n) for n in range(3)]
    path = write({"test": samples})
    _spoil(path, "test/x", 1)
    part = read_part(path, "test")
    assert part.manifest() == manifest(samples)  # reads no voxels
    assert alike(part[0], samples[0]) and alike(part[2], samples[2])
    with pytest.raises(DataError, match=r"toy-\w+\.h5 cannot be read .* Delete .* run again"):
        part[1]


@pytest.mark.parametrize("damage", ["cut", "emptied", "text", "other"])
def test_what_is_not_whole_is_set_aside_with_a_warning(cache, damage):
    path = write({"test": [sample(1)]})
    raw = path.read_bytes()
    if damage == "other":
        path.write_bytes(write({"test": [sample(2)]}, more=1).read_bytes())
    else:
        path.write_bytes({"cut": raw[:-200], "emptied": b"", "text": b"hello" * 99}[damage])
    assert find_prepared("toy", WHO) is None
    with pytest.warns(UserWarning, match=r"Renamed to toy-\w+\.h5\.corrupt and prepared again"):
        assert write({"test": [sample(3)]}) == path
    assert read_part(path, "test")[0].key == sample(3).key
    assert path.with_name(path.name + ".corrupt").exists()


def test_a_file_that_is_gone_is_a_data_error():
    path = write({"test": [sample(1)]})
    path.unlink()
    with pytest.raises(DataError, match="run again"):
        len(read_part(path, "test"))


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (replace(sample(2), x=torch.zeros(2, 4, 5)), r"shape \(2, 4, 5\), not \(2, 5, 4\)"),
        (replace(sample(2), mask=torch.zeros(4, 5)), r"mask of 'patient-2/z' has shape"),
        (replace(sample(2), roi=torch.zeros(1, 5, 4)), r"roi of 'patient-2/z' has shape"),
        (replace(sample(2), counterpart=torch.zeros(1, 5, 4)), "counterpart"),
        (replace(sample(2), x=torch.full((2, 5, 4), torch.nan)), "NaN"),
        (replace(sample(2), key="patient-1/z"), "two samples have the key 'patient-1/z'"),
        (replace(sample(2), group="patient-1"), "'patient-1' is in two splits, train and test"),
    ],
)
def test_what_no_reader_could_mend_is_not_written(cache, second, says):
    with pytest.raises(DataError, match=says):
        write({"train": [sample(1)], "test": [second]})
    assert list(cache.glob("*.h5")) == []


def test_parts_of_one_split_may_share_a_group():
    write({"train": [sample(1)], "train-abnormal": [replace(sample(1), key="another")]})


def test_digests_are_remembered_until_a_file_changes(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text(path.name)
    output = []
    want = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    assert hash_files(paths, lambda *facts: output.append(facts)) == want
    assert output == [("reading files", 1, 2), ("reading files", 2, 2)]

    read, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, how: read.append(file.name) or digest(file, how)
    )
    assert hash_files(paths) == want and read == []
    times = paths[1].stat()
    paths[1].write_text("c")  # as long, and pretends to be as old
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hash_files(paths)[1] == hashlib.sha256(b"c").hexdigest()
    assert read == [str(paths[1])]
    for nonsense in ("[1]", "{", '{"a": 3}', "7"):
        (cache_root() / "data" / "digests.json").write_text(nonsense)
        assert hash_files(paths)[0] == want[0]
    with pytest.raises(DataError, match="none cannot be read"):
        hash_files([tmp_path / "none"])


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("ADBENCH_CACHE")
    assert cache_root().name == "adbench"
