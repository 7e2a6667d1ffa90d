"""The stranger's test: whoever searches a thing by the field's word for it finds its file.

A word finds the files and folders with it in their names, as a search by file name does. It must
lead to few of them, and to the right one.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "datasets", "methods", "benchmark")
MAX_OTHERS = 3
"""Other names that a word may find: what fits on a line of a terminal."""


class Question(NamedTuple):
    """question: of a stranger; word: searched for; path: of the answer; symbol: defined there"""

    question: str
    word: str
    path: str
    symbol: str


QUESTIONS = [
    Question(
        "where is AUPRO computed",
        "metrics",
        "benchmark/evaluation/metrics/ranking_curves.py",
        "Ranking.aupro",
    ),
    Question(
        "where is a checkpoint written",
        "fit_predict",
        "benchmark/experiments/fit_predict.py",
        "fit",
    ),
    Question(
        "where is an interrupted training stored",
        "partial",
        "benchmark/store/partial_state.py",
        "PartialState",
    ),
    Question("where is DDIM", "solvers", "engine/sampling/solvers.py", "DdimOde"),
    Question("where is the brain data read", "brats", "datasets/brats.py", "BraTS"),
    Question("where are NIfTI files read", "nifti", "datasets/io/nifti.py", "read_volume"),
    Question(
        "where is the noise schedule", "schedule", "engine/diffusion/schedule.py", "cosine_schedule"
    ),
    Question("where is simplex noise", "simplex", "engine/noise/simplex.py", "simplex_fields"),
    Question("where is the U-Net", "networks", "engine/networks/diffusion_unet.py", "build_unet"),
    Question("where is the training loop", "loop", "engine/training/loop.py", "train_module"),
    Question(
        "where are the weights averaged (EMA)",
        "optimizer",
        "engine/training/optimizer_state.py",
        "OptimizerState.update_ema",
    ),
    Question("where are random numbers drawn", "rng", "engine/runtime/rng.py", "Rng"),
    Question(
        "what happens when the GPU runs out of memory",
        "out_of_memory",
        "engine/runtime/out_of_memory.py",
        "retry_out_of_memory",
    ),
    Question("where are FLOPs counted", "flop", "engine/profiling/flop_counter.py", "FlopCounter"),
    Question(
        "where is classifier guidance",
        "classifier",
        "engine/sampling/classifier_guidance.py",
        "classifier_guidance",
    ),
    Question(
        "who chooses the threshold", "protocol", "benchmark/evaluation/protocol.py", "Protocol"
    ),
    Question(
        "where are confidence intervals computed",
        "bootstrap",
        "benchmark/evaluation/statistics/bootstrap.py",
        "percentile_interval",
    ),
    Question(
        "where is the leaderboard sorted",
        "leaderboard",
        "benchmark/leaderboard/leaderboard.py",
        "build_leaderboards",
    ),
    Question("where is the HTML page made", "html", "benchmark/report/html/page.py", "build_page"),
    Question(
        "how are jobs submitted to Slurm",
        "slurm",
        "benchmark/executors/slurm_backend.py",
        "SlurmCluster",
    ),
    Question("what is in a cache key", "cache_key", "benchmark/store/cache_key.py", "cache_key"),
    Question(
        "where is a new plug-in made", "plugin", "benchmark/plugins/scaffold.py", "create_plugin"
    ),
    Question("where is AnoDDPM", "anoddpm", "methods/anoddpm.py", "AnoDDPM"),
    Question(
        "where are patients split", "split", "datasets/splits/assignment.py", "four_way_split"
    ),
    Question(
        "where are published numbers compared",
        "reproduc",
        "benchmark/leaderboard/reproduction.py",
        "reproduce",
    ),
]


def _names() -> list[Path]:
    """All files and folders of the packages, without caches."""
    return [
        path.relative_to(ROOT)
        for top in PACKAGES
        for path in (ROOT / top, *sorted((ROOT / top).rglob("*")))
        if "__pycache__" not in path.parts
    ]


NAMES = _names()


def _defines(path: Path, symbol: str) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for part in symbol.split("."):
        node = next((node for node in body if getattr(node, "name", None) == part), None)
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            return False
        body = node.body
    return True


@pytest.mark.parametrize("question", QUESTIONS, ids=[each.question for each in QUESTIONS])
def test_a_stranger_finds_the_file(question: Question) -> None:
    path = Path(question.path)
    on_the_way = {path, *path.parents}
    matches = [name for name in NAMES if question.word in name.name]
    assert on_the_way & {*matches}, f"{question.word} leads elsewhere: {[*map(str, matches)]}"
    others = [str(name) for name in matches if name not in on_the_way]
    assert len(others) <= MAX_OTHERS, f"{question.word} leads to {others} too"
    assert _defines(ROOT / path, question.symbol), f"{path} defines no {question.symbol}"
