"""The command line `adbench`, a client of the Python API: its verbs, and what all of them share.

Thin: what a verb needs is imported when it is called, so that `--help` loads neither torch nor
pandas.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ..scheduling.exit_codes import USAGE
from . import catalogue, report
from .cache import app as cache_app
from .data import app as data_app
from .external import EVALUATE_EXAMPLES, EXPORT_MAPS_EXAMPLE, evaluate, export_maps
from .plugins import check, new_app
from .predict import PREDICT_EXAMPLE, predict
from .run import EXAMPLES, plan, run
from .run_options import CommandGroup
from .schema import SCHEMA_EXAMPLE, schema
from .sharing import MERGE_EXAMPLE, PUBLISH_EXAMPLE, merge, publish
from .speed import speed
from .streams import protect_standard_streams
from .tuning import TUNE_EXAMPLE, tune
from .weights import EXPORT_NETWORK_EXAMPLE, IMPORT_EXAMPLE, export_network, import_weights

# Read when torch loads. Threads that spin while they wait make a training ten times slower as soon
# as another process wants a core (measured: 2500 ms a step against 370); asleep, they cost nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(version("diffusion-adbench"))
        raise typer.Exit


@app.callback()
def adbench(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train, sweep and compare diffusion-based anomaly detectors.

    Example: adbench run --profile tiny; adbench report
    """


# in the order in which --help lists them
app.command(epilog=EXAMPLES)(run)
app.command()(plan)
app.command(epilog=TUNE_EXAMPLE)(tune)
app.command("report")(report.report)
app.command(epilog=PREDICT_EXAMPLE)(predict)
app.command(epilog=EVALUATE_EXAMPLES)(evaluate)
app.command(epilog=EXPORT_MAPS_EXAMPLE)(export_maps)
app.command("list")(catalogue.list_names)
app.command()(catalogue.info)
app.command()(catalogue.doctor)
app.command()(report.compare)
app.command()(report.reproduce)
app.command()(report.status)
app.command("import", epilog=IMPORT_EXAMPLE)(import_weights)
app.command(epilog=MERGE_EXAMPLE)(merge)
app.command(epilog=PUBLISH_EXAMPLE)(publish)
app.command("export", epilog=EXPORT_NETWORK_EXAMPLE)(export_network)
app.command(epilog=SCHEMA_EXAMPLE)(schema)
app.command()(speed)
app.command()(check)
app.add_typer(new_app, name="new")
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")


def main() -> None:
    """Run the command line of this process, and end with its exit code.

    Where its output was lost, the exit code is that of an error.

    >>> import subprocess
    >>> words = [sys.executable, "-m", "adbench.benchmark.cli.main", "lisst"]
    >>> subprocess.run(words, capture_output=True).returncode  # there is no such verb
    2
    """
    output = protect_standard_streams()
    try:
        app(prog_name="adbench")
    except SystemExit as end:
        sys.stdout.flush()
        sys.exit(end.code or (USAGE if output.failed else 0))


if __name__ == "__main__":
    main()
