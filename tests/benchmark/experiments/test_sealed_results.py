"""Bytes flipped in the results folder: every one is found, named, and mended by the same run."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.evaluation.sample_results import SampleResultsError
from adbench.benchmark.experiments import pipeline
from adbench.benchmark.leaderboard.comparison import compare
from adbench.benchmark.leaderboard.entry import Entry
from adbench.benchmark.leaderboard.pairwise import sample_results_of
from adbench.benchmark.leaderboard.records import read_records, record_seal
from adbench.benchmark.report.html.images import ImageBudget, open_image
from adbench.benchmark.report.html.packed_records import unpack_records
from adbench.benchmark.report.html.page import render_page

PLUGIN = Path(__file__).parents[2] / "plugin"
FLIPS = {"records": 42, "samples": 77, "pictures": 41}


def run(folder: Path) -> str:
    argv = ["run", "-d", "bumps", "--store", str(folder / "store")]
    for name in ("registry", "trouble"):
        argv += ["--registry", str(PLUGIN / f"{name}.yaml")]
    argv += ["--out", str(folder / "out"), "-m", "brightness,walker", "--no-baselines"]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def contents(out: Path) -> dict[str, bytes]:
    kinds = sorted(path for kind in FLIPS for path in (out / kind).iterdir())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in kinds}


def flipped(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def damage_of(path: Path) -> Sequence[str]:
    """What is said of a file that is read again."""
    out = path.parents[1]
    records = read_records(out / "records")
    if path.parent.name == "records":
        return [record["reason"] for record in records if record["status"] == "broken"]
    record = next(r for r in records if path.name.startswith(r["file"].removesuffix(".json")))
    budget = ImageBudget()
    if path.suffix == ".png":
        kind = path.name.removeprefix(record["file"].removesuffix(".json")).removesuffix(".png")
        image = open_image(path.parent, Entry(record, 1, ""), budget, kind)
        assert (image is None) == bool(budget.damaged)
        return list(budget.damaged)
    try:
        sample_results_of(record, out)
    except SampleResultsError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("kind", FLIPS)
def test_every_flipped_byte_is_found_and_named(kind: str, copied: Path) -> None:
    draw = random.Random(kind)
    paths = sorted((copied / "out" / kind).iterdir())
    sound = {path: path.read_bytes() for path in paths}
    assert not any(damage_of(path) for path in paths)
    results = 0
    for _ in range(FLIPS[kind]):
        path = draw.choice(paths)
        path.write_bytes(flipped(sound[path], draw))
        text = damage_of(path)
        if kind == "records" and not text:  # such as a blank between two fields
            assert json.loads(path.read_bytes()) == json.loads(sound[path])
        else:
            assert len(text) == 1 and path.name in text[0] and "`adbench run`" in text[0]
            results += 1
        path.write_bytes(sound[path])
    assert results > 0.8 * FLIPS[kind]


def test_the_same_run_mends_all_files_and_predicts_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("nothing is fitted or predicted again")

    monkeypatch.setattr(pipeline, "fit", refuse)
    monkeypatch.setattr(pipeline, "predict", refuse)
    out, draw = copied / "out", random.Random(0)
    sound = contents(out)
    assert "again" not in run(copied) and contents(out) == sound
    for name, content in sound.items():
        (out / name).write_bytes(flipped(content, draw))
    output = run(copied)
    assert contents(out) == sound
    assert all(name in output for name in sound if name.startswith("records"))
    for name, content in sound.items():
        if not name.startswith("records"):
            (out / name).write_bytes(content[: len(content) // 2])
    output = run(copied)
    assert contents(out) == sound
    assert all(name in output for name in sound if not name.startswith("records"))
    next((out / "pictures").iterdir()).unlink()
    assert run(copied) and contents(out) == sound


def test_nothing_is_decided_from_a_damaged_file(copied: Path) -> None:
    out = copied / "out"
    samples, *_ = sorted((out / "samples").iterdir())
    picture, *_ = sorted((out / "pictures").iterdir())
    for path in (samples, picture):
        path.write_bytes(flipped(path.read_bytes(), random.Random(1)))
    with pytest.raises(SampleResultsError, match="the same `adbench run` writes it again"):
        compare("brightness", "walker", out)
    page = render_page(read_records(out / "records"), out)
    assert f"{samples} was damaged" in page and f"{picture} was damaged" in page
    record, *_ = sorted((out / "records").iterdir())
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "failed"}))
    assert "damaged or edited" in read_records(out / "records")[0]["reason"]


def test_an_older_record_without_a_seal_is_read_shown_and_sealed(copied: Path) -> None:
    out = copied / "out"
    sound = contents(out)
    for path in (out / "records").iterdir():
        record = json.loads(path.read_bytes())
        assert record["seal"] == record_seal(record)
        assert set(record.pop("files")) == {name for name in sound if path.stem in name} - {
            f"records/{path.name}"
        }
        del record["seal"]
        path.write_text(json.dumps(record))
    records = read_records(out / "records")
    assert [record["status"] for record in records] == ["ok", "ok"]
    archive = render_page(records, out).partition('id="records">')[2].partition("<")[0]
    seals = [dict(each["facts"])["seal"] for each in unpack_records(archive)]
    assert len(seals) == 2 and all(seal.startswith("none: damage to this") for seal in seals)
    assert "damaged" not in run(copied)
    assert contents(out) == sound
