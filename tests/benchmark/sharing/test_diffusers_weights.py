"""Folders of diffusers become methods, methods become folders of diffusers, and the two agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import adbench
from adbench.benchmark.cli.main import app
from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.sharing.exported_networks import export_to_diffusers

SMALL = {"phantom": {"shape": [16, 16], "train": 8, "val": 4, "test": 4}}
OPTIONS: dict[str, Any] = {
    "profile": "check", "settings": SMALL, "baselines": False, "progress": False,
    "executor": "inline", "levels": [250],
}  # fmt: skip


def save_unet(folder: Path, channels: int = 1, **changes: Any) -> Any:
    from diffusers import DDIMScheduler, UNet2DModel  # pyright: ignore

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2DModel(**{
            "sample_size": 16, "in_channels": channels, "out_channels": channels,
            "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 2,
            "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), **changes,
        }).eval()  # fmt: skip
    net.save_pretrained(folder / "unet")
    DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction",
        clip_sample_range=2.0).save_pretrained(folder / "scheduler")  # fmt: skip
    return net


def save_codec(folder: Path, name: str) -> Any:
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = getattr(diffusers, name)(
            in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=2, scaling_factor=0.6,
        ).eval()  # fmt: skip
        if name == "VQModel":
            torch.nn.init.normal_(net.quantize.embedding.weight)
    net.save_pretrained(folder / ("vae" if name == "AutoencoderKL" else "vqvae"))
    return net


def detector(path: Any, method: str, store: Path, **options: Any) -> Any:
    return adbench.load(path, method=method, profile="check", store=store, device="cpu", **options)


@pytest.mark.parametrize("method", ["anoddpm", "ddpm-ood", "ddad"])
def test_a_unet_becomes_the_denoiser_with_its_schedule(tmp_path: Path, method: str) -> None:
    theirs = save_unet(tmp_path)
    summary = adbench.import_weights(
        method, tmp_path, name="x", profile="check", store=tmp_path / "store"
    )
    assert summary["formats"] == {"denoiser": "diffusers UNet2DModel"}
    from adbench.benchmark.api.weights import _imported_method

    denoiser: Any = _imported_method(f"{method}@x", (), tmp_path / "store").denoiser
    assert denoiser.prediction_type == "v" and denoiser.clip == (-2.0, 2.0)
    assert denoiser.schedule.name == "cosine 1000 0.008"
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([4, 701])  # called with t = level - 1
    with torch.no_grad():
        expected = theirs(x, level - 1).sample
        assert (denoiser.predict(x, level) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("method", "codec"),
    [("ldm", "VQModel"), ("ldm-ood", "AutoencoderKL"), ("deco-diff", "AutoencoderKL"),
     ("glad", "AutoencoderKL")],
)  # fmt: skip
def test_a_pipeline_becomes_a_latent_method_that_runs(
    tmp_path: Path, method: str, codec: str
) -> None:
    save_unet(tmp_path, channels=2)
    theirs = save_codec(tmp_path, codec)
    if method == "deco-diff":  # its process is no diffusion of Gaussian noise
        (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    store = tmp_path / "store"
    adbench.import_weights(method, tmp_path, name="x", profile="check", store=store)
    adbench.run(f"{method}@x", "phantom", **OPTIONS, out=tmp_path / "out", store=store)
    (record,) = adbench.load_results(tmp_path / "out").records
    assert record["status"] == "ok", record["reason"]
    loaded: Any = adbench.load(next((tmp_path / "out" / "records").glob("*.json")), store=store)
    x = torch.rand(1, 1, 16, 16)
    low, high = loaded.method.codec.range
    with torch.no_grad():
        scaled = (x - low) / (high - low) * 2 - 1  # pipelines have images in -1..1
        z = theirs.encode(scaled)
        z = z.latent_dist.mean if codec == "AutoencoderKL" else theirs.quantize(z.latents)[0]
        ours = loaded.method.codec.encode(x)
        assert (ours - 0.6 * z).abs().max() < 1e-5 * ours.abs().max()


def test_what_is_exported_is_opened_and_comes_back_equal(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline  # pyright: ignore[reportPrivateImportUsage]

    store, out = tmp_path / "store", tmp_path / "out"
    adbench.run("anoddpm", "phantom", **OPTIONS, out=out, store=store)
    classes = adbench.export_network("anoddpm", tmp_path / "folder", out=out, store=store)
    assert classes == {"unet": "UNet2DModel"}
    trained: Any = adbench.load(next((out / "records").glob("*.json")), store=store, device="cpu")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "folder")
    denoiser: Any = trained.method.denoiser
    x, level = torch.rand(2, 1, *trained.method.canvas.padded_shape), torch.tensor([10, 500])
    with torch.no_grad():
        ours, theirs = denoiser.predict(x, level), pipeline.unet(x, level - 1).sample
    assert (ours - theirs).abs().max() < 1e-5 * ours.abs().max()
    alphas = torch.as_tensor(pipeline.scheduler.alphas_cumprod)
    assert torch.allclose(alphas.double(), denoiser.schedule.alpha_bar[1:], rtol=1e-4)
    assert pipeline.scheduler.config.clip_sample_range == 1.0
    again = detector(
        tmp_path / "folder", "anoddpm", store, dataset="phantom", settings=SMALL, level=250
    )
    images = np.random.default_rng(0).random((2, 1, 16, 16), np.float32)
    first, second = trained.localize(images), again.localize(images)
    assert trained.level == again.level == 250
    assert np.abs(first - second).max() < 1e-5 * first.max()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("cddpm", "it is conditioned on vector"),
        ("dae", "this denoiser is a PlainUNet"),
        ("bernoulli", r"no scheduler of a bernoulli .*\(--part codec writes the other alone\)"),
        ("ldm", "this codec is a VQ"),
        ("vae", "vae has no network"),
    ],
)
def test_a_network_that_diffusers_lacks_is_refused_with_the_reason(
    tmp_path: Path, method: str, message: str
) -> None:
    entry = Registry.read().method(method)
    built = entry.build(adbench.Spec(1, (16, 16)), **entry.arguments("check"))
    with pytest.raises(ValueError, match=message) as caught:
        export_to_diffusers(built, tmp_path / "x", name=method)
    assert "\n" not in str(caught.value) and not any(tmp_path.iterdir())


def test_the_command_says_what_it_wrote_and_what_it_cannot(tmp_path: Path) -> None:
    save_unet(tmp_path / "in")
    store = ["--store", str(tmp_path / "store")]

    def command(*argv: str) -> Result:
        return CliRunner().invoke(app, [*argv, *store])

    folder = str(tmp_path / "out")
    imported = command("import", "anoddpm", str(tmp_path / "in"), "--as", "x", "--profile", "check")
    assert imported.exit_code == 0, imported.output
    written = command("export", "anoddpm@x", folder)
    assert written.output == f"{folder}/unet: UNet2DModel\n"
    again = command("export", "anoddpm@x", folder)
    assert again.exit_code == 2 and "exists already: name a new folder" in again.output
    missing = command("export", "anoddpm", f"{folder}2", "--out", str(tmp_path))
    assert missing.exit_code == 2 and "has no result of 'anoddpm'" in missing.output
    codec = command("export", "anoddpm@x", f"{folder}2", "--part", "codec")
    assert codec.exit_code == 2 and "has no codec to write; it has denoiser" in codec.output
    other = json.loads((tmp_path / "out" / "unet" / "config.json").read_text())
    assert other["block_out_channels"] == [8, 16]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid' has no equal"),
        ({"prediction_type": "flow"}, "prediction_type='flow'"),
    ],
)
def test_a_schedule_without_an_equal_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save_unet(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=r"scheduler_config|no equal") as caught:
        adbench.import_weights("anoddpm", tmp_path, name="x", profile="check", store=tmp_path / "s")
    assert message in str(caught.value)


def test_weights_are_loaded_as_a_detector_with_a_spec_or_a_dataset(tmp_path: Path) -> None:
    save_unet(tmp_path)
    store, spec = tmp_path / "store", adbench.Spec(1, (16, 16))
    images = np.random.default_rng(0).random((2, 1, 16, 16), np.float32)
    alone = detector(tmp_path, "anoddpm", store, spec=spec, level=100)
    fitted = detector(tmp_path, "anoddpm", store, dataset="phantom", settings=SMALL, level=100)
    assert np.array_equal(alone.localize(images), fitted.localize(images))
    assert alone.threshold is None and alone.predict(images).segmentations is None
    with pytest.raises(ValueError, match=r"calibration.*Name a dataset \(dataset=\)"):
        detector(tmp_path, "ddad", store, spec=spec)
    assert detector(tmp_path, "ddad", store, dataset="phantom", settings=SMALL).score(
        images
    ).shape == (2,)
    with pytest.raises(ValueError, match="name a dataset"):
        detector(tmp_path, "anoddpm", store)
    with pytest.raises(ValueError, match=r"need the method's name: method="):
        adbench.load(tmp_path, spec=spec)
