"""adbench tune: arguments of methods, chosen without the test split."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..scheduling.signals import interrupt_on_sigterm
from .completion import complete_methods
from .options import Traceback, echo, error_messages, rich_console
from .run_options import OPTIONS, with_options

TUNE_EXAMPLE = """Example: adbench tune anoddpm,pddpm,pca -d brats --data ~/brats --trials 20

Trials are trained one after another and kept in the store: the same command goes on."""

TUNED = [name for name in OPTIONS if name not in ("methods", "detach")]


@with_options(TUNED)
def tune(
    methods: Annotated[
        str,
        typer.Argument(help="Names, with commas.", autocompletion=complete_methods),
    ],
    trials: Annotated[int, typer.Option(min=1, help="Of each method, itself as it is included.")],
    objective: Annotated[
        str, typer.Option(help="auto, val, or pseudo: synthetic anomalies in normal samples.")
    ] = "auto",
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Tune methods with equal trials on validation or synthetic anomalies, then run them.

    The test split is seen once, by the run at the end. Needs optuna.
    """
    with error_messages(traceback), interrupt_on_sigterm():
        from ..api.run import request_of
        from ..api.tuning import tune_config
        from ..scheduling.console import ConsoleReporter
        from ..scheduling.exit_codes import STOPPED

        reporter = ConsoleReporter(rich_console(err=True))
        request = request_of(methods=methods, **options)
        for note in request.notes:
            reporter.print_line(note)
        code = tune_config(
            request.config, reporter, request.parts, trials=trials, objective=objective
        )[0]
        if code == 0:
            reporter.print_line(f"done: adbench report --out {request.config.out}")
        if code == STOPPED:
            echo("stopped; the same command goes on", err=True)
        raise typer.Exit(code)
