"""A published site tells nothing of its machine, and its weights run elsewhere as they ran here:
from a folder, and by a stand-in for the hub."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from typer.testing import CliRunner, Result

import adbench
from adbench.benchmark.cli.main import app
from adbench.benchmark.leaderboard.records import record_seal
from adbench.benchmark.sharing import redaction
from hub_server import HubServer, hub_server

pytestmark = pytest.mark.xdist_group("publish")  # what all need is made once

SMALL = {
    "phantom": {"shape": [16, 16], "train": 8, "held_out": 4, "val": 4, "test": 6},
    "dae": {"steps": 6},
}
OPTIONS: dict[str, Any] = {
    "profile": "check", "settings": SMALL, "baselines": False, "progress": False,
    "executor": "inline",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of DAE and PCA, and of a method that failed."""
    folder = tmp_path_factory.mktemp("publish")
    adbench.run(["dae", "pca"], "phantom", out=folder / "out", store=folder / "store", **OPTIONS)
    path = next((folder / "out/records").glob("*.pca.*"))
    record = json.loads(path.read_text())
    fields = ("schema", "method", "dataset", "protocol", "profile", "seed", "partial")
    failed = {key: record[key] for key in fields} | {"status": "failed", "seed": 9}
    failed["reason"] = f"cannot read {folder}/secret/case-1.nii on examplehost"
    failed["failure"] = {"log": f"Traceback in {folder}"}
    failed["attempts"] = [{"host": "examplehost"}]
    failed["seal"] = record_seal(failed)
    (path.parent / "phantom.pca.check.s9.00000000.json").write_text(json.dumps(failed))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


def adbench_(*argv: object) -> Result:
    return CliRunner().invoke(app, [*map(str, argv)])


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def record_of(results: adbench.Results, method: str) -> Any:
    return next(r for r in results.records if r["method"]["name"].startswith(method))


def test_a_site_holds_the_board_and_nothing_of_the_machine(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(redaction.socket, "gethostname", lambda: "examplehost.local")
    monkeypatch.setattr(redaction.getpass, "getuser", lambda: "exampleuser")
    (folder / "out/notes.txt").write_text("not named")
    site = tmp_path / "site"
    result = adbench_("publish", folder / "out", "--to", site)
    assert result.exit_code == 0, result.output
    names = files(site)
    assert {"index.html", "leaderboard.csv", "adbench.json"} <= names
    assert not {name for name in names if name.startswith(("samples", "notes", "logs"))}
    every = b"".join((site / name).read_bytes() for name in names)
    for private in (str(folder), str(tmp_path), str(Path.home()), "examplehost", "Traceback in"):
        assert private.encode() not in every
    page = (site / "index.html").read_text()
    links = re.findall(r'<a href="([^"#]+)"', page)
    assert {link for link in links if not link.startswith("https://")} == names - {
        "index.html", "adbench.json",
    }  # fmt: skip
    published, own = adbench.load_results(site), adbench.load_results(folder / "out")
    assert len(published) == len(own) == 3
    assert record_of(published, "dae")["metrics"] == record_of(own, "dae")["metrics"]
    failed = next(r for r in published.records if r["status"] == "failed")
    assert failed["reason"] == "cannot read case-1.nii on …" and "attempts" not in failed
    before = {name: (site / name).read_bytes() for name in names}
    assert adbench_("publish", folder / "out", "--to", site).exit_code == 0
    assert {name: (site / name).read_bytes() for name in files(site)} == before


def test_only_the_named_dataset_and_what_is_asked_for_goes_in(folder: Path, tmp_path: Path) -> None:
    publication = adbench.publish(folder / "out", tmp_path / "site", samples=True, figures=True)
    kinds = {name.partition("/")[0] for name in publication.files if "/" in name}
    assert kinds == {"records", "pictures", "samples", "figures"}
    site = adbench.load_results(tmp_path / "site")
    assert site.compare("dae", "pca", metric="image_auroc"), "single samples are there"
    result = adbench_("publish", folder / "out", "--to", tmp_path / "b", "-d", "brats")
    assert result.exit_code == 2 and "no dataset 'brats' among phantom" in result.output
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{f}/out"], "name where to: a folder (--to) or a repository"),
        (["{f}/none", "--to", "{t}/site"], "no records in"),
        (["{f}/out", "--to", "{f}/store"], "holds something that is no site"),
        (["{f}/out", "--hub", "lab"], "--hub takes ORG/REPO, not 'lab'"),
        (["{f}/out", "--to", "{t}/site", "--weights", "vae"], "'vae', of which there is no result"),
        (["{f}/out", "--to", "{t}/site", "--weights", "pca", "--store", "{f}/store"],
         "pca has no trained network"),
        (["{f}/out", "--to", "{t}/site", "--weights", "dae", "--store", "{t}/none"], "is not in"),
    ],
)  # fmt: skip
def test_what_cannot_be_published_is_one_line(
    folder: Path, tmp_path: Path, argv: list[str], message: str
) -> None:
    result = adbench_("publish", *(word.format(f=folder, t=tmp_path) for word in argv))
    assert result.exit_code == 2 and message in result.output, result.output
    assert len(result.output.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_damaged_picture_is_not_published(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    next((tmp_path / "out/pictures").iterdir()).write_bytes(b"other")
    result = adbench_("publish", tmp_path / "out", "--to", tmp_path / "site")
    assert result.exit_code == 2 and "was damaged or edited" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing half-written"


def test_weights_of_a_local_site_give_the_results_of_their_training(
    folder: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    adbench.publish(folder / "out", site, weights="dae", store=folder / "store")
    options: dict[str, Any] = OPTIONS | {"settings": {"phantom": SMALL["phantom"]}}
    options |= {"out": tmp_path / "out", "store": tmp_path / "store"}
    again = adbench.run(f"hub:{site}", "phantom", **options)
    (record,), trained = again.records, record_of(adbench.load_results(folder / "out"), "dae")
    assert record["metrics"] == trained["metrics"] and record["samples"] == trained["samples"]
    assert record["method"]["name"].startswith("dae@site-")
    assert record["method"]["args"] == trained["method"]["args"]
    assert record["cost"]["train_steps"] == 0


def test_nothing_is_uploaded_without_a_yes_and_with_it_the_listed_files(
    folder: Path, hub: HubServer, tmp_path: Path
) -> None:
    argv = ["publish", folder / "out", "--hub", "lab/brains", "--weights", "dae",
            "--store", folder / "store"]  # fmt: skip
    listed = adbench_(*argv)
    assert listed.exit_code == 2 and "nothing was uploaded: --yes uploads" in listed.output
    assert not hub.requests
    result = adbench_(*argv, "--yes")
    assert result.exit_code == 0 and f"uploaded: {hub.url}/lab/brains/commit/" in result.output
    names = {name.removeprefix("lab/brains/") for name in hub.files}
    assert names == {line.split()[-1] for line in result.stdout.splitlines() if line[:12].strip()
                     and line[:12].strip()[0].isdigit()}  # fmt: skip
    assert hub.private["lab/brains"] in (True, "private")
    card = hub.files["lab/brains/README.md"].decode()
    assert card.startswith("---\nlibrary_name: adbench") and "| DAE | phantom |" in card
    assert "adbench run -m hub:lab/brains#phantom.dae." in card

    store = ["--store", tmp_path / "store", "--out", tmp_path / "out", "--profile", "check"]
    data = [p for k, v in SMALL["phantom"].items() for p in ("--set", f"phantom.{k}={v}")]
    result = adbench_("run", "-m", "hub:lab/brains", "-d", "phantom", *data, "--no-baselines",
                      "--executor", "inline", *store)  # fmt: skip
    assert result.exit_code == 0, result.output
    (record,) = adbench.load_results(tmp_path / "out").records
    trained = record_of(adbench.load_results(folder / "out"), "dae")
    assert record["metrics"] == trained["metrics"]
    assert record["method"]["name"].startswith("dae@lab.brains-")


def test_the_hub_that_cannot_be_had_is_one_line_and_code_5(
    folder: Path, hub: HubServer, tmp_path: Path, monkeypatch
) -> None:
    def message(place: str = "lab/none") -> str:
        result = adbench_("plan", "-m", f"hub:{place}", "-d", "phantom", "--store", tmp_path / "s")
        assert result.exit_code == 5 and len(result.output.strip().splitlines()) == 1
        return result.output

    assert "there is no repository lab/none, or it is private" in message()
    hub.files["lab/other/README.md"] = b""
    assert "lab/other lacks a file that a site of adbench has" in message("lab/other")
    hub.refuse = 403
    upload = adbench_("publish", folder / "out", "--hub", "lab/x", "--yes")
    assert upload.exit_code == 5 and "the hub refuses (403); log in" in upload.output
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached" in message() and "hub:FOLDER" in message()


def test_weights_that_were_exchanged_or_do_not_fit_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    adbench.publish(folder / "out", site, weights="dae", store=folder / "store")

    def refusal(place: str = str(site)) -> str:
        result = adbench_("plan", "-m", f"hub:{place}", "-d", "phantom", "--store", tmp_path / "s")
        assert result.exit_code == 2 and len(result.output.strip().splitlines()) == 1, result.output
        assert not (tmp_path / "s/weights").exists()
        return result.output

    index = json.loads((site / "adbench.json").read_text())
    (entry,) = index["weights"]

    def change(**values: Any) -> None:
        content = index | {"weights": [entry | values]}
        (site / "adbench.json").write_text(json.dumps(content))

    change(args=entry["args"] | {"widths": [16, 32]})
    assert "of another shape" in refusal()
    change(args=entry["args"] | {"widhts": [16]})
    assert "Did you mean 'widths'?" in refusal()
    change(file="weights/x.pt")
    assert "no file of safetensors" in refusal()
    change(file="weights/../../x.safetensors")
    assert "no file of safetensors" in refusal()
    change(sha256="0" * 64)
    assert "was exchanged" in refusal()
    change()
    assert "0 of its weights are 'pca'" in refusal(f"{site}#pca")
    record = site / entry["record"]
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seed": 1}))
    assert "is no sound record" in refusal()
    (site / entry["file"]).write_bytes(b"not safetensors")
    assert "is damaged or was exchanged" in refusal()
    (site / "adbench.json").unlink()
    assert "holds no adbench.json" in refusal()
