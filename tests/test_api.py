"""`import adbench`: what it loads, what each function returns, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

import adbench
from adbench.benchmark.cli.main import app

SMALL = {"phantom": {"shape": [16, 16], "train": 8, "held_out": 4, "val": 4, "test": 8}}
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def results(folder: Path) -> adbench.Results:
    return adbench.run(
        ["anoddpm", "pca"], "phantom", levels=[100, 250], profile="check", settings=SMALL,
        baselines=False, out=folder / "out", store=folder / "store", progress=False,
    )  # fmt: skip


def test_importing_loads_nothing_heavy_and_every_public_name_is_there() -> None:
    script = (
        "import sys, adbench; "
        "assert not {'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules); "
        "assert set(adbench.__all__) <= set(dir(adbench)); "
        "print(*(getattr(adbench, name) for name in adbench.__all__))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = adbench.rum  # pyright: ignore[reportAttributeAccessIssue]


def test_the_public_names_are_those_that_checkers_see() -> None:
    source = (ROOT / "__init__.py").read_text()
    for module, names in adbench._MODULES.items():
        for name in names:
            assert f"from .{module} import" in source and name in source
    assert sorted(adbench.__all__) == sorted([*adbench._HOME, "__version__"])


def test_a_run_returns_its_results_and_a_second_one_computes_nothing(
    results: adbench.Results, folder: Path
) -> None:
    assert len(results) == 2 and {r["status"] for r in results.records} == {"ok"}
    frame = results.leaderboard().to_frame()
    assert set(frame["method"]) == {"anoddpm", "pca"}
    options: dict[str, Any] = {
        "profile": "check",
        "settings": SMALL,
        "baselines": False,
        "progress": False,
    }
    where: dict[str, Any] = {"out": folder / "out", "store": folder / "store"}
    plan = adbench.plan(
        "anoddpm,pca", "phantom", levels="100,250", store=folder / "store", **options
    )
    assert set(plan["state"]) == {"cached"}
    again = adbench.run("pca", "phantom", levels=[100, 250], **options, **where)
    assert [r["method"]["name"] for r in again.records] == ["pca"]
    assert len(adbench.load_results(folder / "out")) == 2


def test_results_are_compared_plotted_and_written(results: adbench.Results, tmp_path: Path) -> None:
    (comparison,) = results.compare("anoddpm", "pca", metric="image_auroc")
    assert comparison.difference.metric == "image_auroc"
    lines = results.plot_levels("image_auroc").get_lines()
    assert sorted(np.size(line.get_xdata()) for line in lines) == [2, 2]
    assert "tabular" in results.to_latex() and "| anoddpm" in results.to_markdown().lower()
    assert all(path.exists() for path in results.write(tmp_path))
    results.write()  # the page elsewhere has the same pictures and comparisons as that beside them
    beside = results.folder / "index.html"
    assert (tmp_path / "index.html").read_text() == beside.read_text()
    assert "data:image" in beside.read_text()
    with pytest.raises(ValueError, match="0 leaderboards fit 'brats'"):
        results.leaderboard("brats")


def test_a_detector_scores_the_test_split_as_its_record_does(
    results: adbench.Results, folder: Path
) -> None:
    """Bit for bit."""
    for path, record in zip(results.paths(), results.records, strict=True):
        detector = adbench.load(path, store=folder / "store")
        test = detector.dataset.test()
        scores = detector.score(test)
        assert scores.dtype == np.float64
        assert scores.tolist() == record["samples"]["score"]
        prediction = detector.predict(detector.dataset)
        assert prediction.keys == record["samples"]["key"]
        assert prediction.maps is not None and prediction.segmentations is not None
        positive = prediction.segmentations.sum(axis=(1, 2)).tolist()
        assert positive == record["samples"]["positive_pixels"]
        frame = prediction.to_frame()
        assert frame["score"].tolist() == scores.tolist()


def test_a_detector_takes_arrays_of_numpy_and_torch(results: adbench.Results, folder: Path) -> None:
    detector = adbench.load(results.paths()[0], store=folder / "store")
    test = detector.dataset.test()
    samples = [test[i] for i in range(4)]
    x, keys = torch.stack([s.x for s in samples]), [s.key for s in samples]
    maps = detector.localize(x, keys=keys)
    assert maps.shape == (4, 16, 16) and maps.dtype == np.float32
    assert (detector.localize(x[:, 0].numpy(), keys=keys) == maps).all()
    assert (detector.localize(test)[:4] == maps).all(), "whatever else is in the batch"
    colours = np.zeros((2, 3, 40, 24), np.uint8)
    assert detector.score(colours).shape == (2,), "fitted as the dataset fits its images"
    for wrong in (np.zeros((2, 5, 16, 16)), np.full((2, 16, 16), 2.0), np.zeros((16, 16))):
        with pytest.raises(ValueError, match="images"):
            detector.score(wrong)
    with pytest.raises(ValueError, match="different keys"):
        detector.score(x, keys=["a"] * 4)


def test_a_detector_reads_files_as_its_dataset_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k, part in enumerate(["train/good"] * 6 + ["test/good"] * 2 + ["test/cut"] * 2):
        path = tmp_path / f"data/wood/{part}/{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(90, 160, (20, 20), np.uint8)).save(path)
        if part == "test/cut":
            mask = tmp_path / f"data/wood/ground_truth/cut/{k:03d}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(mask)
    results = adbench.run(
        "pca", "mvtec/wood", data=tmp_path / "data", settings={"size": 16, "tile": 8},
        profile="tiny", baselines=False, out=tmp_path / "out", progress=False,
    )  # fmt: skip
    (record,) = results.records
    detector = adbench.load(results.paths()[0], data=tmp_path / "data")
    assert detector.score(detector.dataset.test()).tolist() == record["samples"]["score"]
    scores = dict(zip(record["samples"]["key"], record["samples"]["score"], strict=True))
    key, paths = "wood/test/good/006.png", sorted((tmp_path / "data/wood/test/good").iterdir())
    prediction = detector.predict([str(path) for path in paths])
    near = [value for name, value in scores.items() if "006" in name]
    assert prediction.scores[0] == near[0], (key, scores)
    assert prediction.maps is not None and prediction.maps.shape == (2, 16, 16)


def test_a_record_without_its_checkpoint_says_where_it_was_sought(
    results: adbench.Results, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"is not in .*cache import"):
        adbench.load(results.paths()[0], store=tmp_path)


def test_evaluate_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    masks = np.zeros((60, 8, 8), bool)
    masks[1::2, 2:5, 2:5] = True
    maps = rng.random((60, 8, 8)).astype(np.float32) + 0.3 * masks
    groups = [i // 2 for i in range(60)]
    scores = maps.mean((1, 2))
    outcome = adbench.evaluate(
        scores=scores, labels=labels, maps=maps, masks=masks, groups=groups,
        calibration=rng.random((10, 8, 8)),
    )  # fmt: skip
    assert outcome["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert outcome["pixel_ap"] == pytest.approx(
        average_precision_score(masks.ravel(), maps.ravel())
    )
    value, low, high = outcome.to_frame().loc["pixel_ap"]
    assert low < value < high
    assert outcome.threshold is not None and outcome["pixel_dice"] is not None
    without = adbench.evaluate(labels=labels, maps=maps, masks=masks)
    assert without.threshold is None and without["pixel_dice"] is None
    fixed = adbench.evaluate(labels=labels, maps=maps, masks=masks, protocol="fixed:1.0")
    over = maps > 1
    assert fixed["pixel_dice"] == pytest.approx(
        2 * (over & masks).sum() / (over.sum() + masks.sum())
    )
    assert "pixel_ap" in fixed._repr_html_()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": [1, 2], "labels": [0]}, "N = 1 labels"),
        ({"labels": [0, 1]}, "needs scores, maps or both"),
        ({"labels": [0, 1], "scores": [0.5, float("nan")]}, "not finite"),
        ({"labels": [0, 1], "maps": np.zeros((2, 4)), "masks": np.zeros((2, 3))}, "one shape"),
        ({"labels": [0, 1], "scores": [0, 1], "groups": ["a"]}, "1 groups for 2 labels"),
        ({"labels": [0, 1], "scores": [0, 1], "protocol": "val-dice"}, "validation split"),
        ({"labels": [0, 1], "scores": [0, 1], "protocol": "healty@5%"}, "healthy@5%"),
    ],
)
def test_evaluate_refuses_arrays_that_do_not_fit(arrays: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        adbench.evaluate(**arrays)
    assert getattr(error.value, "exit_code", None) == 2


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        ({"methods": "anodppm"}, ["-m", "anodppm"]),
        ({"datasets": "phantm"}, ["-d", "phantm"]),
        ({"suite": "brain"}, ["--suite", "brain"]),
        ({"methods": "pca", "settings": {"pca.x": 1}}, ["-m", "pca", "--set", "pca.x=1"]),
        ({"methods": "pca", "profile": "huge"}, ["-m", "pca", "--profile", "huge"]),
        ({"methods": "pca", "levels": [2000]}, None),
        ({"methods": "pca", "threshold": "no"}, ["-m", "pca", "--threshold", "no"]),
    ],
)
def test_a_mistake_is_the_line_of_the_command_line(options: dict, argv: list[str] | None) -> None:
    with pytest.raises(ValueError) as error:
        adbench.run(**options, progress=False)
    assert getattr(error.value, "exit_code", None) == 2
    if argv is not None:
        output = CliRunner().invoke(app, ["run", *argv]).output
        assert f"error: {error.value}" in output


def test_an_option_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="unknown option 'levles'"):
        adbench.run("pca", levles=[1])  # pyright: ignore[reportCallIssue]


def test_bad_data_raise_and_a_failing_method_does_not(tmp_path: Path) -> None:
    plugin = str(ROOT / "tests/plugin/registry.yaml")
    where: dict[str, Any] = {
        "out": tmp_path,
        "registry": plugin,
        "progress": False,
        "baselines": False,
    }
    with pytest.raises(adbench.DataError, match="2 of 3 files are unusable") as error:
        adbench.run("brightness", "bumps", settings={"bumps.broken": True}, **where)
    assert error.value.exit_code == 5
    results = adbench.run("brightness", "bumps", settings={"brightness.fail": "fit"}, **where)
    assert results.records[0]["status"] == "failed"


class Constant(adbench.Method):
    """Finds nothing anywhere."""

    def fit(self, train, calibration, context) -> None: ...

    def detect(self, x, levels, rng) -> adbench.Detection:
        return adbench.Detection.from_map(torch.zeros(len(levels), len(x), *x.shape[2:]))


def test_a_class_can_be_registered_and_run(tmp_path: Path) -> None:
    adbench.register("constant", Constant, about="zero")
    assert adbench.list_methods().loc["constant", "about"] == "zero"
    results = adbench.run(
        "constant", "phantom", settings=SMALL, baselines=False, out=tmp_path, progress=False
    )
    assert results.records[0]["metrics"]["image_auroc"]["value"] == 0.5
    with pytest.raises(ValueError, match="'anoddpm' is registered already"):
        adbench.register("anoddpm", Constant)
    with pytest.raises(ValueError, match="neither Method nor Dataset"):
        adbench.register("nothing", dict)  # pyright: ignore[reportArgumentType]


def test_methods_are_checked_and_speed_is_measured() -> None:
    frame = adbench.check_methods("pca", axes=[2], settings={"pca.components": 2})
    assert len(frame) > 5 and set(frame["violation"]) == {""}
    facts = adbench.measure_speed(
        "pca", "phantom", settings=SMALL, images=2, rounds=1, progress=False
    )
    assert json.dumps(facts)


def test_what_else_the_command_line_says_is_there(results: adbench.Results, folder: Path) -> None:
    assert adbench.describe("pddpm")["published level"] == 500
    assert adbench.describe("phantom")["arguments"]["seed"] == 0
    assert adbench.describe_machine(folder / "store")["torch"]
    status = adbench.run_status(results.folder, folder / "store")
    assert status.lines()[0].startswith("2 ok records")
    dataset = adbench.load_dataset("phantom", settings=SMALL)
    assert not any(finding.severity == "leak" for finding in adbench.audit(dataset).findings)


def test_a_dataset_is_built_as_a_run_would() -> None:
    dataset = adbench.load_dataset("phantom", settings={"shape": [8, 8], "train": 2})
    assert dataset.spec.shape == (8, 8) and len(dataset.train()) == 2
