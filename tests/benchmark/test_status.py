"""What the files of a run tell while it goes on and after it was stopped."""

from __future__ import annotations

import json
import os
import time

from filelock import FileLock

from adbench.benchmark.status import status
from records import missing, record


def kept(store, name, count=1, age=0.0):
    folder = store / "resume" / name
    folder.mkdir(parents=True)
    for k in range(count):
        for suffix, text in (("json", "{}"), ("abc.safetensors", "x" * 500)):
            path = folder / f"shard-{k}.{suffix}"
            path.write_text(text)
            os.utime(path, (time.time() - age, time.time() - age))


def test_records_are_told_with_their_figures_or_reasons(tmp_path):
    (tmp_path / "records").mkdir()
    for name, made in (("a", record("A")), ("b", missing("B", reason="no\nmemory"))):
        (tmp_path / "records" / f"{name}.json").write_text(json.dumps(made))
    (tmp_path / "records" / "c.json").write_text("{")
    found = status(tmp_path, tmp_path / "store")
    lines = found.lines()
    assert lines[0] == "1 broken, 1 failed, 1 ok records; 0 running, 0 left"
    assert "image AUROC 0.432  pixel AP 0.500" in lines[1] and "failed" in lines[2]
    assert "no memory" in lines[2]
    told = json.loads(json.dumps(found.as_dict()))
    assert [each["status"] for each in told["records"]] == ["ok", "failed", "broken"]


def test_what_holds_its_lock_runs_and_what_does_not_was_left(tmp_path):
    kept(tmp_path, "maps-aaaa", count=3, age=7200)
    kept(tmp_path, "checkpoint-bbbb")
    (tmp_path / "locks").mkdir()
    for name in ("maps-aaaa", "record-cccc", "maps-dddd"):
        (tmp_path / "locks" / f"{name}.lock").touch()
    with (
        FileLock(tmp_path / "locks" / "checkpoint-bbbb.lock"),
        FileLock(tmp_path / "locks" / "record-cccc.lock"),
    ):
        found = status(tmp_path, tmp_path)
        work = {(w.what, w.key): w for w in found.work}
        assert set(work) == {("looking", "aaaa"), ("training", "bbbb"), ("judging", "cccc")}
        assert [w.running for w in found.work] == [True, True, False]
        left = work["looking", "aaaa"]
        assert (left.kept, left.size) == (3, 3 * 502) and 7100 < (left.age or 0) < 7300
        assert "3 kept, 0.0 MB, last 2 h ago; the same command goes on" in "\n".join(found.lines())
    assert not any(w.running for w in status(tmp_path, tmp_path).work)
    FileLock(tmp_path / "locks" / "maps-dddd.lock").acquire(timeout=0)  # asking held nothing


def test_nothing_at_all_is_told_too(tmp_path):
    found = status(tmp_path / "none", tmp_path / "nowhere")
    assert found.lines() == ["no records; 0 running, 0 left"] and not list(tmp_path.iterdir())
