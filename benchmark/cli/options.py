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
    """Print an error of the block as one line, and exit with the code of its kind.

    A warning is a line of its own.

    traceback: let the error through, to show where it came from

    >>> from adbench.benchmark.store.atomic_files import StoreError
    >>> try:
    ...     with error_messages(traceback=False):
    ...         raise StoreError("there is nothing to export")
    ... except typer.Exit as end:
    ...     print("exit code", end.exit_code)
    exit code 2
    """
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
    """Print a text of one or more lines as it stands, and none of it a command to the terminal.

    err: to standard error

    >>> echo("a title \\x1b]0;title")
    a title \\x1b]0;title
    """
    from ..leaderboard.text import plain_lines

    typer.echo(plain_lines(text), err=err)


def rich_console(err: bool = False) -> Any:
    """Return a rich console that no text can send commands to.

    err: of standard error

    >>> rich_console().print("[bold]3[/bold] experiments")
    3 experiments
    """
    from .safe_console import SafeConsole

    return SafeConsole(stderr=err)


def print_json(value: object) -> None:
    """Print a value as indented JSON.

    >>> print_json({"images": 8})
    {
     "images": 8
    }
    """
    import json

    echo(json.dumps(value, indent=1, default=str))


def read_registry(files: list[Path] | None) -> Registry:
    """Return the registry with the entries of further files.

    >>> read_registry(None).method("dae").class_path
    'dae:DAE'
    """
    from ..registry.registry import Registry

    return Registry.read(*(files or []))


def open_store(folder: Path | None) -> Store:
    """Return the store in a folder; None for that of this user, see api.storage.open_store.

    >>> open_store(Path("my-store")).root.name
    'my-store'
    """
    from ..api.storage import open_store

    return open_store(folder)
