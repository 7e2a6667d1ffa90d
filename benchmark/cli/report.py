"""adbench compare, reproduce and status: what records say beyond the board."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from ..scheduling.exit_codes import GATE
from .options import (
    Json,
    RegistryFiles,
    StoreFolder,
    Traceback,
    error_messages,
    open_store,
    print_json,
    read_registry,
    rich_console,
)

RecordsFolder = Annotated[Path, typer.Option(help="Where adbench run wrote.")]
WATCH_INTERVAL = 5.0
"""Seconds between two looks of --watch."""


def compare(
    a: Annotated[str, typer.Argument(help="A method, a record, or a folder of results.")],
    b: Annotated[str, typer.Argument(help="Another: positive differences mean that A has more.")],
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Only this one.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="pixel_ap, image_auroc, pixel_dice or what else the board has."),
    ] = None,
    margin: Annotated[float, typer.Option(help="What counts as no difference.")] = 0.0,
    fail_if: Annotated[
        str | None, typer.Option(help="worse or not-better: exit code 4 if A is.")
    ] = None,
    out: RecordsFolder = Path("results"),
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Is A better than B on the same samples? The difference with its paired 95 % interval."""
    with error_messages(traceback):
        from ..leaderboard.comparison import compare as set_against
        from ..leaderboard.comparison import gate

        gate([], fail_if)  # a wrong word is told before the work
        found = set_against(a, b, out, dataset=dataset, metric=metric, margin=margin)
        failed = gate(found, fail_if)
        if json:
            print_json([comparison.as_dict() for comparison in found])
        else:
            for comparison in found:
                typer.echo(comparison.sentence())
        if failed:
            typer.echo(f"gate failed: {a} is {fail_if}", err=True)
            raise typer.Exit(GATE)


def reproduce(
    paper: Annotated[
        str, typer.Argument(help="PAPER or PAPER:TABLE; all are listed if empty.")
    ] = "",
    out: RecordsFolder = Path("results"),
    registry: RegistryFiles = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Published numbers beside the records here. Exit code 4 if one is not reproduced."""
    with error_messages(traceback):
        from ..leaderboard.leaderboard import ReportError, read_records
        from ..leaderboard.reproduction import NOT, book
        from ..leaderboard.reproduction import reproduce as look

        if not paper:
            for name, facts in book().items():
                typer.echo(f"{name:<10} {facts['label']}: {', '.join(facts['tables'])}")
            return
        look(paper, [])  # a wrong name is told before anything else
        try:
            records = read_records(out / "records")
        except ReportError:
            records = []
        facts, findings = look(paper, records, methods=read_registry(registry).methods)
        if json:
            print_json([finding.as_dict() for finding in findings])
        else:
            typer.echo(f"{facts['label']}  {facts['link']}")
            for table in dict.fromkeys(finding.table for finding in findings):
                typer.echo(f"{table}: {facts['tables'][table]['source']}")
                typer.echo(f"  {facts['tables'][table]['protocol']}")
                for finding in findings:
                    if finding.table == table:
                        typer.echo(f"  {finding.sentence()}")
        if any(finding.verdict == NOT for finding in findings):
            raise typer.Exit(GATE)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Again every 5 s, until Ctrl-C.")] = False,
    out: RecordsFolder = Path("results"),
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """What is done, what is running, and what was left half-way."""
    with error_messages(traceback):
        from ..scheduling.status import status as look

        root = open_store(store).root
        before: list[str] = []
        while True:
            found = look(out, root)
            if json:
                print_json(found.as_dict())
            elif (lines := found.lines()) != before:
                if before and os.isatty(1):
                    rich_console().clear()
                for line in lines:
                    typer.echo(line)
                before = lines
            if not watch:
                return
            time.sleep(WATCH_INTERVAL)


def add_report_commands(app: typer.Typer) -> None:
    """The three verbs, beside `report`."""
    for verb in (compare, reproduce, status):
        app.command()(verb)
