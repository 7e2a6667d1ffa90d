"""adbench cache ls, why and verify: what is stored, how two differ, and what is not whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from adbench.benchmark.cli.cache import app
from adbench.benchmark.store.artifact_store import Store, cache_key
from adbench.benchmark.store.inventory import format_age, format_size
from adbench.benchmark.store.key_text import diff_inputs, format_summary, summarize_inputs
from adbench.benchmark.store.marker import MARKER
from stored import LEVELS, fill_store, maps_inputs, training_inputs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two experiments of eight artifacts, one of which has another learning rate."""
    store = Store(tmp_path / "store")
    fill_store(store, tmp_path / "out", training_inputs(), "brats.anoddpm.s0")
    fill_store(store, tmp_path / "out", training_inputs(lr=2e-5, extra=[1, 2]), "brats.anoddpm.low")
    return store


def cache(folder: Path, *argv: str) -> Result:
    return CliRunner().invoke(app, [*argv, "--store", str(folder / "store")])


def listed(folder: Path, *argv: str) -> list[dict[str, Any]]:
    return json.loads(cache(folder, "ls", "--json", "--out", str(folder / "out"), *argv).stdout)


def test_ls_says_what_everything_is_and_who_stands_on_it(tmp_path: Path, store: Store) -> None:
    cut = store.partial_state("checkpoint", training_inputs(seed=7))
    cut.save("train", {"a": torch.ones(3)})
    items = listed(tmp_path)
    assert [i["kind"] for i in items] == ["checkpoint"] * 2 + ["maps"] * 4 + ["record"] * 2 + [
        "resume"
    ]
    assert sum(i["bytes"] for i in items) == sum(
        p.stat().st_size
        for p in store.root.rglob("*")
        if p.is_file()
        and "locks" not in p.parts
        and p.name != MARKER
        and not p.name.startswith("index.sqlite")
    )
    by_key = {i["key"]: i for i in items}
    item = by_key[cache_key(maps_inputs(training_inputs()))]
    assert item["what"] == "AnoDDPM on brats, seed 0, test, levels 50..500 (4)"
    assert (item["method"], item["dataset"], item["part"]) == ("AnoDDPM", "brats", "test")
    assert item["records"] == ["brats.anoddpm.s0"] and item["levels"] == [*LEVELS]
    assert 0 <= item["age"] < 60
    assert (
        items[-1]["key"] == cache_key(training_inputs(seed=7)) and "unfinished" in items[-1]["what"]
    )
    assert [i["kind"] for i in listed(tmp_path, "record")] == ["record", "record"]
    text = cache(tmp_path, "ls", "--out", str(tmp_path / "out")).stdout.splitlines()
    assert len(text) == len(items) + 2 and text[-1].startswith("9 in all, ")
    assert "[1 record]" in text[1]
    (tmp_path / "out/records/brats.anoddpm.low.json").unlink()
    assert sum(bool(i["records"]) for i in listed(tmp_path)) == 4
    assert cache(tmp_path, "ls", "chekpoint").exit_code == 2


def test_ls_of_nothing_creates_nothing(tmp_path: Path) -> None:
    result = cache(tmp_path, "ls")
    assert result.exit_code == 0 and result.stdout.strip() == "0 in all, 0 B"
    assert not (tmp_path / "store").exists()


def test_why_names_the_leaves_that_differ(tmp_path: Path, store: Store) -> None:
    a, b = cache_key(training_inputs()), cache_key(training_inputs(lr=2e-5, extra=[1, 2]))
    diff = json.loads(cache(tmp_path, "why", a, b, "--json").stdout)
    assert [(f["field"], f["a"], f["b"]) for f in diff["fields"]] == [
        ("args.lr", 1e-4, 2e-5),
        ("args.extra", None, [1, 2]),
    ]
    text = cache(tmp_path, "why", a, b).stdout
    assert "argument lr: 0.0001 in A, 2e-05 in B" in text
    assert "argument extra: absent in A, [1, 2] in B" in text
    out = ["--out", str(tmp_path / "out")]
    record = str(tmp_path / "out/records/brats.anoddpm.low.json")
    named = json.loads(cache(tmp_path, "why", "brats.anoddpm.s0", record, "--json", *out).stdout)
    assert named["fields"] == diff["fields"], (
        "of two experiments each is listed once, not for every split"
    )
    same = cache(tmp_path, "why", a[:8], f"checkpoint/{a}")
    assert same.exit_code == 0 and "from the same inputs" in same.stdout
    mixed = cache(tmp_path, "why", "brats.anoddpm.s0", b[:12], *out)
    assert "argument lr" in mixed.stdout, (
        "of an experiment and a checkpoint the checkpoints are compared"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["zz", "zz"], "no artifact's key"),
        (["CHECKPOINT", "MAPS"], "are of two kinds"),
        (["brats.anoddpm", "brats.anoddpm.s0"], "is the beginning of 2 experiments"),
        (["nothing.json", "MAPS"], "there is no record nothing.json"),
    ],
)
def test_why_of_what_is_not_there_is_one_line(
    tmp_path: Path, store: Store, argv: list[str], message: str
) -> None:
    keys = {
        "CHECKPOINT": cache_key(training_inputs()),
        "MAPS": cache_key(maps_inputs(training_inputs())),
    }
    names = [keys.get(name, name) for name in argv]
    result = cache(tmp_path, "why", *names, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert result.output.startswith("error: ") and message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_why_goes_by_the_records_where_the_store_has_lost_them(
    tmp_path: Path, store: Store
) -> None:
    argv = ["brats.anoddpm.s0", "brats.anoddpm.low", "--out", str(tmp_path / "out")]
    result = cache(tmp_path / "elsewhere", "why", *argv)
    assert "method name" in result.stdout and "by the records alone" in result.stdout


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"seed": 1}, "seed", "the training seed"),
        ({"code": "e" * 32}, "code", "the code of the method, or of what it imports"),
        ({"numerics": "bfloat16"}, "numerics", "the precision"),
        ({"method": "thor:THOR"}, "method", "the method's class"),
    ],
)
def test_differences_are_in_words(change: dict[str, Any], field: str, words: str) -> None:
    one, other = maps_inputs(training_inputs()), maps_inputs(training_inputs() | change)
    (difference,) = diff_inputs(one, other)
    assert (difference["field"], difference["words"]) == (field, words)
    assert diff_inputs(one, one) == [] and diff_inputs(other, one)[0]["a"] == difference["b"]


def test_levels_and_samples_are_told_as_one_each() -> None:
    one, other = maps_inputs(training_inputs()), maps_inputs(training_inputs(), levels=(50, 250))
    assert [f["field"] for f in diff_inputs(one, other)] == ["levels"]
    other = maps_inputs(training_inputs())
    other["data"]["samples"]["test"] = "f4"
    assert [f["words"] for f in diff_inputs(one, other)] == ["the test samples"]


def test_what_is_none_of_the_runners_is_listed_all_the_same() -> None:
    for kind in ("checkpoint", "maps", "record", "thing"):
        assert summarize_inputs(kind, {"some": "thing"}) == {}
    assert format_summary({}) == "not created by a run"
    stage = {"stage": "Coding", "data": {"dataset": "brats"}, "seed": 1, "numerics": "float32"}
    assert format_summary(summarize_inputs("stage", stage)) == "stage Coding on brats, seed 1"


def test_verify_lists_all_that_is_damaged_and_mends(tmp_path: Path, store: Store) -> None:
    partial = store.partial_state("checkpoint", training_inputs(seed=7))
    partial.save("train", {"a": torch.ones(30)})
    assert cache(tmp_path, "verify").exit_code == 0
    a, b, c = (a.path for a in [*store.artifacts()][:3])
    data = bytearray(a.read_bytes())
    data[500] ^= 4  # one bit of 1000 bytes, and the length as it was
    a.write_bytes(data)
    os.truncate(b, 10)
    c.with_name(f"{c.name}.json").unlink()
    state = next(partial.folder.glob("*.safetensors"))
    os.truncate(state, 50)
    result = cache(tmp_path, "verify")
    assert result.exit_code == 5
    bad = [line for line in result.stdout.splitlines() if line.startswith("bad: ")]
    assert len(bad) == 4
    for path in (a, b, c.parent, partial.folder):
        assert any(str(path) in line for line in bad)
    assert "4 damaged (--repair moves them away)" in result.stdout
    assert a.exists() and state.exists(), "nothing is touched unasked"
    with store.lock("checkpoint", a.parent.name):
        busy = cache(tmp_path, "verify", "--repair")
        assert busy.exit_code == 5 and "was not moved" in busy.stdout and a.exists()
    report = json.loads(cache(tmp_path, "verify", "--repair", "--json").stdout)
    assert report["intact"] and len(report["problems"]) == report["repaired"] == 1
    assert len([*(store.root / "corrupt").iterdir()]) == 3
    after = cache(tmp_path, "verify")
    assert after.exit_code == 0 and "5 artifacts" in after.stdout
    assert partial.load("train") is None


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (34_118, "34 kB"), (9.96e9, "10 GB")],
)
def test_sizes_as_people_say_them(number: float, text: str) -> None:
    assert format_size(number) == text


def test_ages_as_people_say_them() -> None:
    texts = [format_age(s) for s in (-5.0, 0.2, 59.0, 90.0, 7200.0, 86400.0 * 40)]
    assert texts == ["0 s", "<1 s", "59 s", "1.5 min", "2.0 h", "40 d"]
