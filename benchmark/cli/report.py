"""adbench report, compare, reproduce and status: what the records of runs say."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from ..scheduling.exit_codes import GATE
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
    read_registry,
    rich_console,
)

MAX_ANSWERS = 5
"""Answers of leaderboards that `report` ends with, at most."""

WATCH_INTERVAL = 5.0
"""Seconds between two reports of `status --watch`."""


def report(
    out: RecordsFolder = Path("results"),
    figures: Annotated[
        bool, typer.Option("--figures", help="Also all charts and pictures as SVG, PDF, PNG.")
    ] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Show the leaderboard; write it as a page (index.html), Markdown, CSV, JSON and LaTeX.

    Example: adbench report --out results
    """
    with error_messages(traceback):
        from ..api.results import load_results
        from ..report.terminal import print_leaderboards

        results = load_results(out)
        if json:
            print_json(results.records)
            return
        paths: list[Path] = []
        try:
            paths = results.write(figures=figures)
        finally:  # after the files, for nobody may be reading; and where none can be written
            print_leaderboards(results.leaderboard_set, rich_console())
        for path in paths:
            echo(str(path))
        for board in results.leaderboard_set.leaderboards[:MAX_ANSWERS]:
            if board.answer:
                echo(f"{board.title}: {board.answer}")
        echo(f"The page: {out / 'index.html'}")


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="A method, a record, or a folder of results.", autocompletion=complete_methods
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            help="Another: positive differences mean that A has more.",
            autocompletion=complete_methods,
        ),
    ],
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Only this one.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="pixel_ap, image_auroc, pixel_dice or another metric of the leaderboard."
        ),
    ] = None,
    margin: Annotated[float, typer.Option(help="What counts as no difference.")] = 0.0,
    fail_if: Annotated[
        str | None, typer.Option(help="worse or not-better: exit code 4 if A is.")
    ] = None,
    out: RecordsFolder = Path("results"),
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Compare A with B on the same samples: the difference with its paired 95 % interval.

    Example: adbench compare pca template-z -d phantom --metric pixel_ap
    """
    with error_messages(traceback):
        from ..leaderboard.comparison import compare as compare_records
        from ..leaderboard.comparison import gate_fails

        gate_fails([], fail_if)  # a wrong word is an error before the work
        comparisons = compare_records(a, b, out, dataset=dataset, metric=metric, margin=margin)
        failed = gate_fails(comparisons, fail_if)
        if json:
            print_json([comparison.as_dict() for comparison in comparisons])
        else:
            for comparison in comparisons:
                echo(comparison.sentence())
        if failed:
            echo(f"gate failed: {a} is {fail_if}", err=True)
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
    """Set published numbers beside the records. Exit code 4 if one is not reproduced.

    Example: adbench reproduce anoddpm:poster --out results
    """
    with error_messages(traceback):
        from ..leaderboard.records import ReportError, read_records
        from ..leaderboard.reproduction import NOT, figures_side_by_side, read_published
        from ..leaderboard.reproduction import reproduce as compare_with_paper

        if not paper:
            for name, facts in read_published().items():
                echo(f"{name:<10} {facts['label']}: {', '.join(facts['tables'])}")
                for title, table in facts["tables"].items():
                    if "bring" in table:
                        echo(f"{'':<10}   {title} ({table['kind']}): needs {table['bring']}")
            return
        compare_with_paper(paper, [])  # a wrong name is an error before anything else
        try:
            records = read_records(out / "records")
        except ReportError:
            records = []
        facts, findings = compare_with_paper(
            paper, records, methods=read_registry(registry).methods
        )
        if json:
            print_json([finding.as_dict() for finding in findings])
        else:
            echo(f"{facts['label']}  {facts['link']}")
            for table in dict.fromkeys(finding.table for finding in findings):
                echo(f"{table}: {facts['tables'][table]['source']}")
                echo(f"  {facts['tables'][table]['protocol']}")
                if "bring" in facts["tables"][table]:
                    echo(f"  {facts['tables'][table]['kind']}")
                    echo(f"  needs: {facts['tables'][table]['bring']}")
                for finding in findings:
                    if finding.table == table:
                        echo(f"  {finding.sentence()}")
            beside = figures_side_by_side(paper.partition(":")[0], records)
            shown = [each for each in beside if each.own and (each.rerun or each.ours is not None)]
            if shown:
                echo("side by side:")
            for each in shown:
                echo(f"  {each.sentence()}")
        if any(finding.verdict == NOT for finding in findings):
            raise typer.Exit(GATE)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Again every 5 s, until Ctrl-C.")] = False,
    out: RecordsFolder = Path("results"),
    store: StoreFolder = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Show what is done, what is running, and what was left unfinished.

    Example: adbench status --watch --out results
    """
    with error_messages(traceback):
        from ..api.results import run_status

        before: list[str] = []
        while True:
            current = run_status(out, store)
            if json:
                print_json(current.as_dict())
            elif (lines := current.lines()) != before:
                if before and os.isatty(1):
                    rich_console().clear()
                for line in lines:
                    echo(line)
                before = lines
            if not watch:
                return
            time.sleep(WATCH_INTERVAL)
