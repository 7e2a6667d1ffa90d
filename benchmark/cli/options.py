"""What the verbs share: how errors end, common options, the registry and the store."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..scheduling.exit_codes import STOPPED, USAGE

if TYPE_CHECKING:
    from ..registry.registry import Registry
    from ..store.artifact_store import Store

RecordsFolder = Annotated[Path, typer.Option(help="Where adbench run wrote its records.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Checkpoints and maps. [env ADBENCH_STORE]")
]
RegistryFiles = Annotated[
    list[Path] | None, typer.Option("--registry", help="One more registry file.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]


@contextmanager
def error_messages(traceback: bool) -> Iterator[None]:
    """A user's error is one line (and the list of what is bad); its kind is the exit code. A
    warning is a line of its own."""
    printed: set[str] = set()

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        if str(message) not in printed:
            printed.add(str(message))
            echo(f"note: {message}", err=True)

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
        echo("interrupted; the same command goes on", err=True)
        raise typer.Exit(STOPPED) from None
    except Exception as error:
        if traceback:
            raise
        echo(f"error: {error or type(error).__name__}", err=True)
        raise typer.Exit(getattr(error, "exit_code", USAGE)) from None


def echo(text: object, *, err: bool = False) -> None:
    """Print a text of one or more lines as it stands, and none of it a command to the terminal."""
    from ..leaderboard.text import plain_lines

    typer.echo(plain_lines(text), err=err)


def rich_console(err: bool = False) -> Any:
    from .safe_console import SafeConsole

    return SafeConsole(stderr=err)


def print_json(value: object) -> None:
    import json

    echo(json.dumps(value, indent=1, default=str))


def read_registry(files: list[Path] | None) -> Registry:
    from ..registry.registry import Registry

    return Registry.read(*(files or []))


def open_store(folder: Path | None) -> Store:
    """See api.storage.open_store."""
    from ..api.storage import open_store

    return open_store(folder)
