"""adbench list, info and doctor: what can be run, and what this machine offers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .completion import complete_entries
from .options import (
    Json,
    RegistryFiles,
    StoreFolder,
    Traceback,
    echo,
    error_messages,
    print_json,
    read_registry,
)

PACKAGES = ("methods", "datasets", "profiles", "suites")


def list_names(
    what: Annotated[
        str, typer.Argument(help="methods, datasets, profiles or suites; all if left out.")
    ] = "",
    registry: RegistryFiles = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """List the names that can be run.

    Example: adbench list methods
    """
    with error_messages(traceback):
        names = read_registry(registry)
        if what and what not in PACKAGES:
            from ..registry.registry import RegistryError

            raise RegistryError(f"list takes one of {', '.join(PACKAGES)}, not {what!r}")
        tables = {
            kind: {
                name: ", ".join(entry) if kind == "suites" else entry.about
                for name, entry in getattr(names, kind).items()
            }
            for kind in PACKAGES
            if what in ("", kind)
        }
        if json:
            print_json(tables)
            return
        for kind, entries in tables.items():
            echo(kind)
            for name, about in entries.items():
                echo(f"  {name:<14} {about}")


def info(
    name: Annotated[
        str, typer.Argument(help="A method or a dataset.", autocompletion=complete_entries)
    ],
    registry: RegistryFiles = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Describe a method or a dataset: what it is, where it comes from, its arguments.

    Example: adbench info anoddpm
    """
    with error_messages(traceback):
        from ..api.catalogue import describe

        facts = describe(name, registry=registry or ())
        if json:
            print_json(facts)
            return
        allowed = facts.pop("allowed")
        for key, value in facts.items():
            if key == "arguments":
                value = {name: f"{part}  ({allowed[name]})" for name, part in value.items()}
            echo(_text(key, value))


def _text(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join([f"{key}:", *(f"  {inner} = {part}" for inner, part in value.items())])
    text = str(value)
    return f"{key}:\n  " + text.strip().replace("\n", "\n  ") if "\n" in text else f"{key}: {text}"


def doctor(store: StoreFolder = None, json: Json = False, traceback: Traceback = False) -> None:
    """Describe this machine: versions, devices, disk space, and what is missing.

    Example: adbench doctor
    """
    with error_messages(traceback):
        from ..api.storage import describe_machine

        facts = describe_machine(store)
        if json:
            print_json(facts)
        else:
            for key, value in facts.items():
                echo(f"{key:<22} {value}")
