"""compare, reproduce and status from the shell: what they print and how they exit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from records import record


@pytest.fixture
def out(tmp_path):
    (tmp_path / "records").mkdir()
    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    for name, shift in (("good", 4.0), ("bad", 0.0)):
        built = record(name)
        built["samples"] = {
            "key": [f"s{i}" for i in range(60)],
            "group": [f"g{i // 2}" for i in range(60)],
            "label": label.tolist(),
            "score": (rng.normal(size=60) + shift * label).tolist(),
        }
        (tmp_path / "records" / f"{name}.json").write_text(json.dumps(built))
    return tmp_path


def ran(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("good", "bad"), 0),
        (("bad", "good"), 0),
        (("bad", "good", "--fail-if", "worse"), 4),
        (("bad", "good", "--fail-if", "worse", "--margin", "2"), 0),
        (("good", "bad", "--fail-if", "worse"), 0),
        (("good", "bad", "--fail-if", "bad"), 2),
        (("good", "nobody"), 2),
    ],
)
def test_compare_fails_where_its_gate_does_and_only_there(out, words, code):
    built = ran("compare", *words, "--out", out)
    assert built.exit_code == code, built.output
    assert ("error: " in built.output) == (code == 2)
    assert ("gate failed: bad is worse" in built.output) == (code == 4)


def test_compare_for_programs(out):
    (output,) = json.loads(ran("compare", "good", "bad", "--out", out, "--json").output)
    assert output["difference"]["verdict"] == "better" and output["files"] == [["good"], ["bad"]]


def test_reproduce_lists_papers_and_says_what_cannot_be_tested(out):
    assert "anoddpm" in ran("reproduce", "--out", out).output
    built = ran("reproduce", "anoddpm", "--out", out / "none")
    assert built.exit_code == 0 and built.output.count("cannot test") == 10
    assert "poster" in built.output
    wrong = ran("reproduce", "anodpm", "--out", out)
    assert wrong.exit_code == 2 and "Did you mean 'anoddpm'" in wrong.output


def test_reproduce_fails_where_a_number_is_not_reproduced(out, monkeypatch):
    row = {"method": "good", "dataset": "brats", "values": [0.1]}
    table = {"source": "s", "protocol": "p", "unit": 1, "rounding": 0.01, "rows": [row]}
    table["metrics"] = {"AUROC": "image_auroc"}
    paper = {"label": "P", "link": "https://example.org", "tables": {"t": table}}
    monkeypatch.setattr(
        "adbench.benchmark.leaderboard.reproduction.read_published", lambda: {"p": paper}
    )
    registry = out / "more.yaml"
    registry.write_text("methods:\n  good: {class: 'pca:PCA', label: G, about: g}\n")
    built = ran("reproduce", "p", "--out", out, "--registry", registry)
    assert built.exit_code == 4 and "not: brats AUROC" in built.output


def test_status_tells_the_records(out):
    built = ran("status", "--out", out, "--store", out / "store")
    assert built.exit_code == 0 and built.output.startswith("2 ok records; 0 running, 0 left")
    output = json.loads(ran("status", "--out", out, "--store", out / "store", "--json").output)
    assert len(output["records"]) == 2 and output["work"] == []
