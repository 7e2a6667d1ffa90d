"""UAD-IMAG from volumes on disk to its table: made-up volumes, laid out as the table asks for."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app

PLUGIN = Path(__file__).parents[2] / "plugin" / "brightness.py"


def write_volumes(root: Path) -> None:
    """Twelve healthy T2 volumes and eight with a bright lesion, in BIDS."""
    rng = np.random.default_rng(4)
    for number in range(20):
        volume = np.zeros((16, 16, 8), np.float32)
        volume[2:14, 2:14, 1:7] = rng.integers(300, 700, (12, 12, 6))
        name = f"sub-{number:03d}"
        if number >= 12:
            mask = np.zeros(volume.shape, np.uint8)
            mask[4:9, 5 : 8 + number % 3, 2:5] = 1
            volume[mask > 0] += 600
            path = root / "derivatives/masks" / name / "anat" / f"{name}_label-lesion_mask.nii.gz"
            path.parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(mask, np.eye(4)), path)
        path = root / name / "anat" / f"{name}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), path)


def test_volumes_laid_out_as_the_table_asks_run_to_the_table(tmp_path):
    root, name = tmp_path / "brats", "uad-imag-brats-t2"
    write_volumes(root)
    arguments = {"root": str(root), "modalities": ["T2w"], "size": 16}
    entries = {
        "methods": {"riad": {"class": f"{PLUGIN}:Brightness"}},
        "datasets": {name: {"class": "volumes:Volumes", "args": arguments, "replace": True}},
    }
    registry = tmp_path / "registry.yaml"
    registry.write_text(yaml.safe_dump(entries))
    out = str(tmp_path / "out")
    argv = ["run", "-m", "riad", "-d", name, "--registry", str(registry), "--protocol"]
    argv += ["uad-imag,adbench", "--profile", "paper", "--no-baselines", "--out", out]
    argv += ["--store", str(tmp_path / "store"), "--executor", "inline"]
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 0, result.output
    argv = ["reproduce", "uad-imag", "--out", out, "--registry", str(registry), "--json"]
    result = CliRunner().invoke(app, argv)
    findings = json.loads(result.output)
    compared = {f["metric"]: f for f in findings if f["value"] is not None}
    assert set(compared) == {"best Dice", "Dice"}
    assert {f["dataset"] for f in compared.values()} == {name}
    assert compared["best Dice"]["published"] == 0.236
    assert compared["best Dice"]["value"] >= compared["Dice"]["value"] > 0
    assert all(len(f["records"]) == 1 for f in compared.values()), "of one protocol alone"
