"""adbench data: prepare a dataset, verify its files, and audit its splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..scheduling.exit_codes import GATE, NO_DATA
from .completion import complete_datasets
from .options import Json, Traceback, echo, error_messages, print_json, rich_console
from .run_options import with_options

if TYPE_CHECKING:
    from ...datasets.base import VerificationReport
    from ..audit.audit import Cue

app = typer.Typer(
    no_args_is_help=True,
    help="Prepare datasets, verify their files, and audit their splits.",
)

DatasetName = Annotated[
    str,
    typer.Argument(
        help="A dataset, such as brats or mvtec/hazelnut.", autocompletion=complete_datasets
    ),
]
OPTIONS = ("data", "profile", "registry", "settings")
"""The fields of RunConfig that decide which dataset is built."""

MAX_FOLDERS = 20
"""How many folders verify shows one by one."""


@app.command()
@with_options(OPTIONS)
def prepare(
    name: DatasetName, json: Json = False, traceback: Traceback = False, **options: Any
) -> None:
    """Read, check and preprocess a dataset once. Run again after an interruption, it continues.

    Example: adbench data prepare brats --data ~/brats
    """
    with error_messages(traceback):
        from ..api.catalogue import describe_profile, load_dataset
        from ..scheduling.console import ConsoleReporter

        dataset = load_dataset(name, **options)
        with ConsoleReporter(rich_console(err=True)).progress_of(f"prepare {name}") as progress:
            dataset.prepare(progress)
        splits = ("train", "calibration", "val", "test")
        samples = {split: len(getattr(dataset, split)()) for split in splits}
        if json:
            print_json({"dataset": name, "samples": samples})
            return
        counts = ", ".join(f"{split} {count}" for split, count in samples.items())
        if line := describe_profile(name, **options):
            echo(line)
        shape = " x ".join(map(str, (dataset.spec.channels, *dataset.spec.shape)))
        echo(f"{name} is prepared: {counts} samples of {shape}")


@app.command()
@with_options(OPTIONS)
def verify(
    name: DatasetName, json: Json = False, traceback: Traceback = False, **options: Any
) -> None:
    """Read every file to its last byte and list all that is wrong. Exit code 5 if anything is.

    Ends with a table of all files: read, or left out and why.

    Example: adbench data verify mvtec/hazelnut --data ~/mvtec
    """
    with error_messages(traceback):
        from ..api.catalogue import describe_profile, load_dataset
        from ..scheduling.console import ConsoleReporter

        dataset = load_dataset(name, **options)
        with ConsoleReporter(rich_console(err=True)).progress_of(f"verify {name}") as progress:
            report = dataset.verify(progress)
        data = describe_profile(name, report.statistics, **options)
        if json:
            print_json({"dataset": name, "data": data, **asdict(report)})
        else:
            for line in verification_lines(name, report, data):
                echo(line)
        if report.problems:
            raise typer.Exit(NO_DATA)


def verification_lines(name: str, report: VerificationReport, data: str = "") -> Iterator[str]:
    """Yield what verify prints: problems, notes, what a sample is, and a table of all files.

    name: of the dataset
    report: of its verification
    data: what the profile changes of the data

    >>> from adbench.benchmark.cli.data import verification_lines
    >>> from adbench.datasets.base import VerificationReport
    >>> list(verification_lines("mine", VerificationReport([], [], {"test": 3})))
    ['mine: nothing wrong; readable samples: test 3']
    >>> list(verification_lines("mine", VerificationReport(["a.h5 is empty"], [], {})))
    ['bad: a.h5 is empty', 'mine: 1 problem; readable samples: none']
    """
    from ...datasets.base import first_names, merge_equal

    yield from (f"bad: {problem}" for problem in merge_equal(report.problems))
    yield from (f"note: {note}" for note in merge_equal(report.notes))
    if data:
        yield data
    if report.statistics is not None:
        yield f"sample: {report.statistics.as_text()}"
    counts = ", ".join(f"{split} {count}" for split, count in report.samples.items())
    count = len(report.problems)
    what = f"{count} problem{'s' if count > 1 else ''}" if count else "nothing wrong"
    yield f"{name}: {what}; readable samples: {counts or 'none'}"
    if not report.files_read and not report.left_out:
        return
    yield "   files"
    cases = f"{report.bad_cases} case{'s' if report.bad_cases > 1 else ''}"
    bad = f", with a problem in {cases}" if report.bad_cases else ""
    yield f"{report.files_read:8d}  read{bad}"
    if len(report.folders) <= MAX_FOLDERS:
        for folder, count in report.folders.items():
            yield f"{count:8d}    {folder}"
    for files in report.left_out:
        yield f"{files.count:8d}  left out: {files.reason}: {first_names(files.names, 20)}"


@app.command()
@with_options(OPTIONS)
def audit(
    name: DatasetName, json: Json = False, traceback: Traceback = False, **options: Any
) -> None:
    """Find leaks between splits, and cheap cues that alone tell normal from abnormal.

    Exit code 4 if a leak is found. Ends with a table of the cues: how well each alone does.

    Example: adbench data audit phantom --set shape=[32,32]
    """
    with error_messages(traceback):
        from ..api.catalogue import load_dataset
        from ..audit.audit import audit as run_audit
        from ..scheduling.console import ConsoleReporter

        dataset = load_dataset(name, **options)
        with ConsoleReporter(rich_console(err=True)).progress_of(f"audit {name}") as progress:
            dataset.prepare(progress)
            report = run_audit(dataset, progress=progress)
        if json:
            print_json({"dataset": name, **asdict(report)})
        else:
            for finding in report.findings:
                echo(f"{finding.severity}: {finding}")
            for line in cue_lines(report.cues):
                echo(line)
            leaks = sum(finding.severity == "leak" for finding in report.findings)
            echo(f"{name}: {leaks or 'no'} leak{'' if leaks == 1 else 's'} found")
        if any(finding.severity == "leak" for finding in report.findings):
            raise typer.Exit(GATE)


def cue_lines(cues: Sequence[Cue]) -> Iterator[str]:
    """Yield a table of the cues that an audit tried, and what each reached.

    cues: of the audit

    >>> from adbench.benchmark.audit.audit import Cue
    >>> from adbench.benchmark.cli.data import cue_lines
    >>> print(list(cue_lines([Cue("test", "contrast", 0.9, 0.8, 0.97)]))[-1])
       0.900  0.800 to 0.970   test   contrast
    """
    if not cues:
        yield "no cue was tried: neither val nor test holds normal and abnormal samples"
        return
    yield "cues tried, each alone a detector of the abnormal samples (0.5 is chance):"
    yield "   AUROC  95 % interval   split  cue"
    for cue in cues:
        has_interval = cue.low is not None and cue.high is not None
        interval = f"{cue.low:.3f} to {cue.high:.3f}" if has_interval else "too few groups"
        yield f"   {cue.auroc:.3f}  {interval:<15}  {cue.split:<5}  {cue.name}"
