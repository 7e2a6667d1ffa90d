"""adbench cache: list, compare and verify what is stored, free space, export and import."""

from __future__ import annotations

import json as json_
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..scheduling.exit_codes import NO_DATA
from .options import (
    Json,
    RecordsFolder,
    StoreFolder,
    Traceback,
    echo,
    error_messages,
    open_store,
    print_json,
    rich_console,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Look into the store of checkpoints, maps and evaluations: list, compare, verify, free "
    "space, export and import.",
)

RecordsFolders = Annotated[
    list[Path] | None, typer.Option("--out", help="Where adbench run wrote (again for more).")
]


@app.command()
def ls(
    kind: Annotated[
        str, typer.Argument(help="stage, checkpoint, maps, record, resume or corrupt")
    ] = "",
    out: RecordsFolders = None,
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Everything in the store: its kind, key, size, age, time since its last use, and content.

    Example: adbench cache ls maps
    """
    with error_messages(traceback):
        from ..store.inventory import format_table, list_items, records_by_artifact

        items = list_items(open_store(store), records_by_artifact(out or [Path("results")]))
        if kind and kind not in (kinds := {item.kind for item in items}):
            raise ValueError(f"nothing of kind {kind!r}; there is {', '.join(sorted(kinds)) or 0}")
        items = [item for item in items if kind in ("", item.kind)]
        if json:
            print_json([item.as_dict(time.time()) for item in items])
            return
        echo("\n".join(format_table(items)))


@app.command()
def why(
    a: Annotated[
        str, typer.Argument(help="A key or its beginning, a record file, or an experiment.")
    ],
    b: Annotated[str, typer.Argument(help="Another.")],
    out: RecordsFolder = Path("results"),
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Why A and B are two results: how the inputs of their cache keys differ.

    Example: adbench cache why phantom.pca.tiny.s0 phantom.pca.tiny.s1
    """
    with error_messages(traceback):
        from ..store.key_diff import diff_keys

        diff = diff_keys(a, b, open_store(store), out)
        if json:
            print_json(asdict(diff))
            return
        for line in diff.lines():
            echo(line)


@app.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Move away what is damaged.")] = False,
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Verify the checksums of everything stored. Exit code 5 if something stays damaged.

    Example: adbench cache verify --repair
    """
    with error_messages(traceback):
        from ..scheduling.console import ConsoleReporter
        from ..store.integrity import verify_store

        with ConsoleReporter(rich_console(err=True)).progress_of("cache") as progress:
            report = verify_store(open_store(store), repair=repair, progress=progress)
        if json:
            print_json({**asdict(report), "intact": report.intact})
        else:
            for problem in report.problems:
                echo(f"bad: {problem}")
            for note in report.notes:
                echo(f"note: {note}")
            damaged = f"{len(report.problems)} damaged" if report.problems else "all intact"
            moved = f", {report.repaired} moved away; a run creates them again"
            hint = "" if report.intact or repair else " (--repair moves them away)"
            checked = f"{report.artifacts} artifacts, {report.states} states of unfinished work"
            echo(f"{checked}: {damaged}{moved if report.repaired else ''}{hint}")
        if not report.intact:
            raise typer.Exit(NO_DATA)


@app.command()
def gc(
    max_size: Annotated[
        str, typer.Option(help="Bytes that may stay, as 20GB: the least recently used go first.")
    ] = "",
    older: Annotated[
        str, typer.Option(help="Remove what was not used for so long, as 30d or 12h.")
    ] = "",
    unused: Annotated[
        bool,
        typer.Option("--unused", help="Remove what no record uses, of any run with this store."),
    ] = False,
    forget: Annotated[
        list[Path] | None,
        typer.Option(help="A result folder that no longer exists, for --unused."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    out: RecordsFolders = None,
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Free space. What a process is creating, or a running process may need, is never removed.

    Example: adbench cache gc --older 30d --dry-run
    """
    with error_messages(traceback):
        from ..store.garbage_collection import (
            RemovalCriteria,
            collect_garbage,
            parse_age,
            parse_size,
        )
        from ..store.inventory import records_by_artifact
        from ..store.marker import forget_result_folder, result_folders

        if sum(map(bool, (max_size, older, unused))) != 1:
            raise ValueError("gc takes one of --max-size 20GB, --older 30d and --unused")
        opened, used = open_store(store), None
        for folder in forget or []:
            forget_result_folder(opened.root, folder)
        if unused:
            outs = result_folders(opened.root, out or [])
            used = frozenset(records_by_artifact(outs, strict=True))
            if not used:
                where = ", ".join(map(str, outs)) or "any result folder"
                raise ValueError(f"--unused: no record in {where} uses anything (--out DIR)")
        most, age = parse_size(max_size) if max_size else None, parse_age(older) if older else None
        report = collect_garbage(opened, RemovalCriteria(most, age, used), dry_run=dry_run)
        if json:
            now = time.time()
            print_json(
                {
                    "dry_run": dry_run,
                    "removed": [{**r.item.as_dict(now), "why": r.reason} for r in report.removed],
                    "retained": [{**r.item.as_dict(now), "why": r.reason} for r in report.retained],
                    "bytes_left": report.bytes_left,
                    "locks": report.locks_removed,
                }
            )
            return
        for line in report.lines(dry_run=dry_run):
            echo(line)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A .tar to write.")],
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Names of experiments, or their beginnings.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Only what this folder's records use.")] = None,
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Write artifacts to one file, for another store; all of them if none is named.

    Example: adbench cache export pca.tar phantom.pca --out results
    """
    with error_messages(traceback):
        from ..store.archive import export_archive, select_artifacts
        from ..store.inventory import format_size

        opened = open_store(store)
        if experiments or out:
            folder = out or Path("results")
            artifacts = select_artifacts(experiments or [], _records_by_experiment(folder))
        else:
            artifacts = {(path.parents[1].name, path.name) for path in opened.folders()}
        names = export_archive(opened, artifacts, file)
        if json:
            print_json({"file": str(file), "artifacts": names})
        else:
            echo(f"{file}: {len(names)} artifacts, {format_size(file.stat().st_size)}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .tar of adbench cache export.")],
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Import the artifacts of an exported file. Exit code 5 if one does not verify.

    Example: adbench cache import pca.tar
    """
    with error_messages(traceback):
        from ..store.archive import import_archive

        report = import_archive(open_store(store), file)
        if json:
            print_json(report._asdict())
        else:
            for problem in report.problems:
                echo(f"bad: {problem}")
            echo(
                f"{len(report.imported)} artifacts imported, "
                f"{len(report.present)} were there already, {len(report.problems)} problems"
            )
        if report.problems:
            raise typer.Exit(NO_DATA)


def _records_by_experiment(out: Path) -> dict[str, dict[str, Any]]:
    """Every record of a folder, by the name of its experiment."""
    records = {}
    for path in sorted((out / "records").glob("[!.]*.json")):
        try:
            records[path.stem] = dict(json_.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no record: {error}") from error
    if not records:
        raise ValueError(f"there are no records in {out} (adbench run --out {out})")
    return records
