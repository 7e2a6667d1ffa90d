"""What the verbs of the command line share: how errors end, where things are read from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..scheduling.exit_codes import NO_DATA, STOPPED, USAGE

if TYPE_CHECKING:
    from ..registry.registry import Registry
    from ..store.artifact_store import Store

ResultsFolder = Annotated[Path, typer.Option(help="Where records, pictures and the board go.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Checkpoints and maps. [env ADBENCH_STORE]")
]
RegistryFiles = Annotated[
    list[Path] | None, typer.Option("--registry", help="One more registry file.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]
DataFolder = Annotated[Path | None, typer.Option(help="Where the data lie. [env ADBENCH_DATA]")]
Profile = Annotated[
    str | None, typer.Option(help="Sizes and budgets: paper (default on a GPU), tiny (on a CPU).")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="An argument: anoddpm.steps=200, size=64 (again for more)."),
]


@contextmanager
def error_messages(traceback: bool) -> Iterator[None]:
    """A user's error is one line (and the list of what is bad); its kind is the exit code. A
    warning is a line of its own."""
    said: set[str] = set()

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            typer.echo(f"note: {message}", err=True)

    try:
        with warnings.catch_warnings():
            if not traceback:
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", UserWarning)
                warnings.showwarning = show
            yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on", err=True)
        raise typer.Exit(STOPPED) from None
    except Exception as error:
        if traceback:
            raise
        typer.echo(f"error: {error or type(error).__name__}", err=True)
        raise typer.Exit(exit_code(error)) from None


def exit_code(error: Exception) -> int:
    """5 for data, 2 for the rest: by name, so that nothing heavy is imported for it."""
    return NO_DATA if type(error).__name__ == "DataError" else USAGE


def rich_console(err: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=err)


def print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=1, default=str))


def read_registry(paths: list[Path] | None) -> Registry:
    from ..registry.registry import Registry

    return Registry.read(*(paths or []))


def open_store(folder: Path | None) -> Store:
    from ..store.artifact_store import Store

    if folder is None and (named := os.environ.get("ADBENCH_STORE")):
        folder = Path(named)
    if folder is None:
        from platformdirs import user_cache_path

        folder = user_cache_path("adbench") / "store"
    return Store(folder)
