"""Imported weights are evaluated as a detector: the weights of a run, exported and imported, give
the maps of that run bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

import adbench
from adbench.benchmark.cli.main import app
from adbench.benchmark.store.artifact_store import Store
from adbench.engine.checkpoints.monai_generative import CODEBOOK_NAMES

pytestmark = pytest.mark.xdist_group("imported weights")  # what all need is made once

SMALL = {"phantom": {"shape": [16, 16], "train": 8, "val": 4, "test": 4}}
OPTIONS: dict[str, Any] = {
    "profile": "check", "settings": SMALL, "baselines": False, "progress": False,
    "executor": "inline", "levels": [100],
}  # fmt: skip


def under(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of AnoDDPM and of LDM-OOD, and their weights as others would save them."""
    folder = tmp_path_factory.mktemp("imported")
    where: dict[str, Any] = {"out": folder / "out", "store": folder / "store"}
    adbench.run(["anoddpm", "ldm-ood"], "phantom", **OPTIONS, **where)
    for artifact in Store(folder / "store").artifacts("checkpoint"):
        weights = load_file(artifact.path)
        name = artifact.key_inputs["method"].rpartition(":")[2]
        parts = {"denoiser": under(weights, "denoiser.net."), "codec": under(weights, "codec.net.")}
        if parts["codec"]:  # monai-generative keeps the codebook in the network
            parts["codec"] |= {
                theirs: weights[f"codec.{ours}"] for ours, theirs in CODEBOOK_NAMES.items()
            }
        for part, state in parts.items():
            content = {"n_epoch": 3, "model_state_dict": state, "loss": 0.5}
            torch.save(content, folder / f"{name}-{part}.pt")
    return folder


def record(folder: Path, method: str) -> Any:
    results = adbench.load_results(folder / "out")
    return next(r for r in results.records if r["method"]["name"] == method)


def import_(folder: Path, *argv: object) -> Result:
    command = ["import", *map(str, argv), "--profile", "check", "--store", str(folder / "store")]
    return CliRunner().invoke(app, command)


def test_imported_weights_give_the_results_of_their_training(folder: Path) -> None:
    result = import_(folder, "anoddpm", folder / "AnoDDPM-denoiser.pt", "--as", "mine")
    assert result.exit_code == 0 and "anoddpm@mine: denoiser (MONAI)" in result.output
    events: list[str] = []
    adbench.run("anoddpm@mine", "phantom", **OPTIONS, out=folder / "out", store=folder / "store")
    trained, imported = record(folder, "anoddpm"), record(folder, "anoddpm@mine")
    assert imported["metrics"] == trained["metrics"] and not events
    assert imported["samples"] == trained["samples"]
    assert imported["method"]["label"] == "AnoDDPM (mine)"
    assert imported["cost"]["train_steps"] == 0 < trained["cost"]["train_steps"]
    assert imported["keys"]["checkpoint"] != trained["keys"]["checkpoint"]
    weights = next(Store(folder / "store").artifacts("weights"))
    assert imported["keys"]["weights"] == weights.key and "weights" not in trained["keys"]


def test_a_codec_is_imported_beside_its_denoiser(folder: Path) -> None:
    files = [folder / "LDMOOD-denoiser.pt", f"codec={folder / 'LDMOOD-codec.pt'}"]
    result = import_(folder, "ldm-ood", *files, "--as", "both")
    assert result.exit_code == 0, result.output
    adbench.run("ldm-ood@both", "phantom", **OPTIONS, out=folder / "out", store=folder / "store")
    trained, imported = record(folder, "ldm-ood"), record(folder, "ldm-ood@both")
    assert imported["metrics"] == trained["metrics"]


def test_the_same_file_again_is_the_same_and_another_needs_another_name(folder: Path) -> None:
    path = folder / "AnoDDPM-denoiser.pt"
    first = import_(folder, "anoddpm", path, "--as", "twice", "--json")
    assert import_(folder, "anoddpm", path, "--as", "twice", "--json").stdout == first.stdout
    content = torch.load(path, weights_only=True)
    content["n_epoch"] = 4
    torch.save(content, folder / "other.pt")
    result = import_(folder, "anoddpm", folder / "other.pt", "--as", "twice")
    assert result.exit_code == 2 and "anoddpm@twice is taken by other weights" in result.output


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["anoddpm", "{f}/none.pt", "--as", "x"], "there is no file"),
        (["anodpm", "{f}/AnoDDPM-denoiser.pt", "--as", "x"], "Did you mean 'anoddpm'"),
        (["anoddpm", "codec={f}/AnoDDPM-denoiser.pt", "--as", "x"], "anoddpm has no codec"),
        (["anoddpm", "{f}/LDMOOD-denoiser.pt", "--as", "x"], "these weights are of"),
        (["anoddpm", "{f}/AnoDDPM-denoiser.pt", "--as", "a b"], "--as takes up to 64 letters"),
        (["anoddpm", "{f}/AnoDDPM-denoiser.pt", "--as", "x", "--key", "ema"], "no state dict at"),
        (["cddpm", "{f}/AnoDDPM-denoiser.pt", "--as", "x"], "these weights are of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(folder: Path, argv: list[str], message: str) -> None:
    result = import_(folder, *(text.format(f=folder) for text in argv))
    assert result.exit_code == 2 and message in result.output, result.output
    assert len(result.output.strip().splitlines()) == 1


def test_weights_that_are_not_in_the_store_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights 'other' of anoddpm are in the store") as bad:
        adbench.run("anoddpm@other", "phantom", **OPTIONS, out=tmp_path, store=folder / "store")
    assert "adbench import anoddpm FILE --as other" in str(bad.value)
    assert getattr(bad.value, "exit_code", None) == 2
