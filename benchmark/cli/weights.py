"""adbench import and export: weights that were trained elsewhere, and networks for elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_methods
from .options import (
    Json,
    RecordsFolder,
    RegistryFiles,
    StoreFolder,
    Traceback,
    echo,
    error_messages,
    print_json,
)

PARTS = ("denoiser", "codec", "classifier", "encoder", "coder")

IMPORT_EXAMPLE = "Example: adbench import anoddpm args28/params-final.pt --as mine; adbench run -m \
anoddpm@mine -d brats"


def import_weights(
    method: Annotated[
        str, typer.Argument(help="A method's name.", autocompletion=complete_methods)
    ],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="A checkpoint file or a folder of diffusers; codec=FILE, classifier=FILE or "
            "encoder=FILE for the other networks of a method.",
        ),
    ],
    name: Annotated[str, typer.Option("--as", help="The name: METHOD@NAME can then be run.")],
    channels: Annotated[int, typer.Option(min=1, help="Channels of the samples.")] = 1,
    axes: Annotated[int, typer.Option(min=1, max=3, help="Spatial axes of the samples.")] = 2,
    profile: Annotated[str, typer.Option(help="The profile whose network it is.")] = "paper",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="An argument of the network, such as mults=[1,2] (again)."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The key of the state dict in the file, such as ema.")
    ] = None,
    registry: RegistryFiles = None,
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Import weights that were trained elsewhere; METHOD@NAME loads them instead of training."""
    with error_messages(traceback):
        from ..api.weights import import_weights as import_

        paths: dict[str, Path] = {}
        for file in files:
            part, equals, path = file.partition("=")
            is_part = bool(equals) and part in PARTS
            if (part if is_part else "") in paths:
                raise typer.BadParameter(
                    f"{file}: there is a file for this network already; name the part: codec={file}"
                )
            paths[part if is_part else ""] = Path(path if is_part else file)
        summary = import_(
            method, paths, name=name, channels=channels, axes=axes, profile=profile,
            settings=settings or [], key=key, registry=registry or (), store=store,
        )  # fmt: skip
        if json:
            print_json(summary)
            return
        formats = ", ".join(f"{part} ({name})" for part, name in summary["formats"].items())
        echo(f"{summary['method']}@{summary['name']}: {formats}, {summary['tensors']} tensors")
        for file, names in summary["unread"].items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            echo(f"not read of {file}: {', '.join(names[:3])}{more}")
        echo(f"adbench run -m {summary['method']}@{summary['name']} -d DATASET")


EXPORT_NETWORK_EXAMPLE = "Example: adbench export anoddpm@mine --to diffusers anoddpm-unet"


def export_network(
    source: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help="METHOD@NAME of imported weights, a record file, or a method that --out has one "
            "result of.",
            autocompletion=complete_methods,
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="The new folder.")],
    to: Annotated[str, typer.Option("--to", help="The library: diffusers.")] = "diffusers",
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", help="denoiser or codec alone; all that there is without."),
    ] = None,
    out: RecordsFolder = Path("results"),
    registry: RegistryFiles = None,
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Write a method's networks as a folder that diffusers opens."""
    with error_messages(traceback):
        from ..api.weights import export_network as export

        if to != "diffusers":
            raise typer.BadParameter(f"networks can be written for diffusers, not for {to!r}")
        classes = export(
            source, folder, to="diffusers", parts=parts or (), out=out, registry=registry or (),
            store=store,
        )  # fmt: skip
        if json:
            print_json(classes)
            return
        for name, kind in classes.items():
            echo(f"{folder / name}: {kind}")
