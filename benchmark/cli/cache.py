"""adbench cache: what is stored, why something was made again, whether it is whole; making room."""

from __future__ import annotations

import json as json_
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..scheduling.exit_codes import NO_DATA
from .options import Json, StoreDir, Trace, console, errors, open_store, print_json

app = typer.Typer(
    no_args_is_help=True,
    help="Look into the store of checkpoints, maps and judgements: list, compare, verify, make "
    "room, take along.",
)

Out = Annotated[Path, typer.Option(help="Where adbench run wrote its records.")]
Outs = Annotated[
    list[Path] | None, typer.Option("--out", help="Where adbench run wrote (again for more).")
]


@app.command()
def ls(
    kind: Annotated[
        str, typer.Argument(help="stage, checkpoint, maps, record, resume or corrupt")
    ] = "",
    out: Outs = None,
    store: StoreDir = None,
    json: Json = False,
    traceback: Trace = False,
) -> None:
    """Everything in the store: its kind, key, size, when it was made and used last, what it is."""
    with errors(traceback):
        from ..store.inventory import inventory, table, uses

        items = inventory(open_store(store), uses(out or [Path("results")]))
        if kind and kind not in (kinds := {item.kind for item in items}):
            raise ValueError(f"nothing of kind {kind!r}; there is {', '.join(sorted(kinds)) or 0}")
        items = [item for item in items if kind in ("", item.kind)]
        if json:
            print_json([item.as_dict(time.time()) for item in items])
            return
        for line in table(items):
            typer.echo(line)


@app.command()
def why(
    a: Annotated[str, typer.Argument(help="A key or its beginning, a record file, or a cell.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    out: Out = Path("results"),
    store: StoreDir = None,
    json: Json = False,
    traceback: Trace = False,
) -> None:
    """Why A and B are two results: what differs in what they were made from."""
    with errors(traceback):
        from ..store.key_diff import why as look

        found = look(a, b, open_store(store), out)
        if json:
            print_json(asdict(found))
            return
        for line in found.lines():
            typer.echo(line)


@app.command()
def verify(
    mend: Annotated[bool, typer.Option("--mend", help="Set aside what is damaged.")] = False,
    store: StoreDir = None,
    json: Json = False,
    traceback: Trace = False,
) -> None:
    """Read all that is stored to its last byte. Exit code 5 if something is damaged and stays."""
    with errors(traceback):
        from ..scheduling.console import Watch
        from ..store.integrity import verify as look

        with Watch(console(err=True)).step("cache") as progress:
            found = look(open_store(store), mend=mend, progress=progress)
        if json:
            print_json({**asdict(found), "sound": found.sound})
        else:
            for problem in found.problems:
                typer.echo(f"bad: {problem}")
            for note in found.notes:
                typer.echo(f"note: {note}")
            bad = f"{len(found.problems)} damaged" if found.problems else "all whole"
            aside = f", {found.mended} set aside; a run makes them anew" if found.mended else ""
            hint = "" if found.sound or mend else " (--mend sets them aside)"
            looked = f"{found.artefacts} artefacts, {found.states} states of unfinished work"
            typer.echo(f"{looked}: {bad}{aside}{hint}")
        if not found.sound:
            raise typer.Exit(NO_DATA)


@app.command()
def gc(
    max_size: Annotated[
        str, typer.Option(help="Bytes that may stay, as 20GB: least recently used go first.")
    ] = "",
    older: Annotated[str, typer.Option(help="Go if not used for so long, as 30d or 12h.")] = "",
    unused: Annotated[
        bool, typer.Option("--unused", help="Go if no record in --out stands on it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    out: Outs = None,
    store: StoreDir = None,
    json: Json = False,
    traceback: Trace = False,
) -> None:
    """Make room. Never removes what is being made, or what a running process may need."""
    with errors(traceback):
        from ..store.garbage_collection import Wanted, parse_age, parse_size
        from ..store.garbage_collection import gc as sweep
        from ..store.inventory import uses

        if sum(map(bool, (max_size, older, unused))) != 1:
            raise ValueError("gc takes one of --max-size 20GB, --older 30d and --unused")
        outs = out or [Path("results")]
        used = frozenset(uses(outs)) if unused else None
        if used is not None and not used:
            where = ", ".join(map(str, outs))
            raise ValueError(f"--unused: no record in {where} stands on anything (--out DIR)")
        most, age = parse_size(max_size) if max_size else None, parse_age(older) if older else None
        found = sweep(open_store(store), Wanted(most, age, used), dry=dry_run)
        if json:
            now = time.time()
            print_json(
                {
                    "dry_run": dry_run,
                    "removed": [{**g.item.as_dict(now), "why": g.why} for g in found.gone],
                    "kept": [{**g.item.as_dict(now), "why": g.why} for g in found.spared],
                    "bytes_left": found.left,
                    "locks": found.locks,
                }
            )
            return
        for line in found.lines(dry=dry_run):
            typer.echo(line)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A .tar to write.")],
    cells: Annotated[
        list[str] | None, typer.Argument(help="Cells of --out, or what their names begin with.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Only what this folder's records stand on.")
    ] = None,
    store: StoreDir = None,
    json: Json = False,
    traceback: Trace = False,
) -> None:
    """Write artefacts to one file, to take elsewhere; all of the store if none is named."""
    with errors(traceback):
        from ..store.archive import chosen
        from ..store.archive import export as write
        from ..store.inventory import size

        opened = open_store(store)
        if cells or out:
            folder = out or Path("results")
            found = chosen(cells or [], _records(folder))
        else:
            found = {(path.parents[1].name, path.name) for path in opened.folders()}
        names = write(opened, found, file)
        if json:
            print_json({"file": str(file), "artefacts": names})
        else:
            typer.echo(f"{file}: {len(names)} artefacts, {size(file.stat().st_size)}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .tar of adbench cache export.")],
    store: StoreDir = None,
    json: Json = False,
    traceback: Trace = False,
) -> None:
    """Take in what an exported file holds; what does not verify is not taken, and exit code 5."""
    with errors(traceback):
        from ..store.archive import take

        found = take(open_store(store), file)
        if json:
            print_json(found._asdict())
        else:
            for problem in found.problems:
                typer.echo(f"bad: {problem}")
            typer.echo(
                f"{len(found.new)} artefacts taken, {len(found.known)} were there, "
                f"{len(found.problems)} problems"
            )
        if found.problems:
            raise typer.Exit(NO_DATA)


def _records(out: Path) -> dict[str, dict[str, Any]]:
    """Every record of a folder, by its cell."""
    found = {}
    for path in sorted((out / "records").glob("[!.]*.json")):
        try:
            found[path.stem] = dict(json_.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no record: {error}") from error
    if not found:
        raise ValueError(f"there are no records in {out} (adbench run --out {out})")
    return found
