"""adbench data: prepare a dataset, look for what is wrong with its files, and with its splits."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ..scheduling.exit_codes import GATE, NO_DATA
from .options import (
    DataFolder,
    Json,
    Profile,
    RegistryFiles,
    Settings,
    Traceback,
    error_messages,
    print_json,
    read_registry,
    rich_console,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ...datasets.base import Dataset

app = typer.Typer(
    no_args_is_help=True,
    help="Prepare datasets, and find what is wrong with their files and splits.",
)

DatasetName = Annotated[str, typer.Argument(help="A dataset, such as brats or mvtec/hazelnut.")]


@app.command()
def prepare(
    name: DatasetName,
    data: DataFolder = None,
    profile: Profile = None,
    registry: RegistryFiles = None,
    set_: Settings = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Read, check and preprocess a dataset once. An interrupted call goes on where it stopped."""
    with error_messages(traceback):
        from ..scheduling.console import Watch

        dataset = _build_dataset(name, data, profile, registry, set_)
        with Watch(rich_console(err=True)).step(f"prepare {name}") as progress:
            dataset.prepare(progress)
        parts = {
            part: len(dataset.get_split(part)) for part in ("train", "held_out", "val", "test")
        }
        if json:
            print_json({"dataset": name, "samples": parts})
            return
        counts = ", ".join(f"{part} {count}" for part, count in parts.items())
        shape = " x ".join(map(str, (dataset.spec.channels, *dataset.spec.shape)))
        typer.echo(f"{name} is prepared: {counts} samples of {shape}")


@app.command()
def verify(
    name: DatasetName,
    data: DataFolder = None,
    profile: Profile = None,
    registry: RegistryFiles = None,
    set_: Settings = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Read every file to its last byte and list all that is wrong. Exit code 5 if anything is."""
    with error_messages(traceback):
        from ..scheduling.console import Watch

        dataset = _build_dataset(name, data, profile, registry, set_)
        with Watch(rich_console(err=True)).step(f"verify {name}") as progress:
            found = dataset.verify(progress)
        if json:
            print_json({"dataset": name, **asdict(found)})
        else:
            for problem in found.problems:
                typer.echo(f"bad: {problem}")
            for note in found.notes:
                typer.echo(f"note: {note}")
            counts = ", ".join(f"{part} {count}" for part, count in found.samples.items())
            what = f"{len(found.problems)} problems" if found.problems else "nothing wrong"
            typer.echo(f"{name}: {what}; readable samples: {counts or 'none'}")
        if found.problems:
            raise typer.Exit(NO_DATA)


@app.command()
def audit(
    name: DatasetName,
    data: DataFolder = None,
    profile: Profile = None,
    registry: RegistryFiles = None,
    set_: Settings = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Look for leaks between splits, and for cheap cues that alone tell normal from abnormal.

    Exit code 4 if a leak is found.
    """
    with error_messages(traceback):
        from ..audit.audit import audit as look
        from ..scheduling.console import Watch

        dataset = _build_dataset(name, data, profile, registry, set_)
        with Watch(rich_console(err=True)).step(f"audit {name}") as progress:
            dataset.prepare(progress)
            found = look(dataset, progress=progress)
        if json:
            print_json({"dataset": name, **asdict(found)})
        else:
            for finding in found.findings:
                typer.echo(f"{finding.severity}: {finding}")
            leaks = sum(finding.severity == "leak" for finding in found.findings)
            typer.echo(f"{name}: {leaks or 'no'} leak{'' if leaks == 1 else 's'} found")
        if any(finding.severity == "leak" for finding in found.findings):
            raise typer.Exit(GATE)


def _build_dataset(
    name: str,
    data: Path | None,
    profile: str | None,
    registry: list[Path] | None,
    sets: list[str] | None,
) -> Dataset:
    """The dataset as `run` would build it with the same options."""
    from ..executors.launch import circumstances
    from ..experiments.matrix import default_profile, parse_overrides, resolve_overrides

    names = read_registry(registry)
    entry = names.dataset(name)
    given = resolve_overrides(parse_overrides(sets or []), [], [name], names)[name]
    if data is not None and "root" in entry.parameters():
        given["root"] = str(data)
    chosen = profile or default_profile(circumstances("auto", "auto").device)
    return entry.load()(**entry.arguments(chosen, given))
