"""A leaderboard as a static site: its page, its tables, its records and pictures, ready for any web
host; links are relative.

A site is built in a folder beside its place and takes the place when it is whole. Records lose what
is of the machine alone (`redaction`), and are sealed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..leaderboard.rankings import build_leaderboard_set
from ..leaderboard.records import (
    DamagedFile,
    Record,
    ReportError,
    read_records,
    read_sealed,
    record_seal,
    record_text,
)
from ..report.export import FIGURE_KINDS, as_json, cost_csv, csv, markdown
from ..report.html.page import MAX_CHARTS, build_page
from ..report.latex import latex
from ..store.atomic_files import atomic_write, check_folder, file_sha256
from .hub import INDEX
from .redaction import find_private, redact_record

SCANNED = {".json", ".html", ".md", ".csv", ".tex", ".svg", ".txt"}
"""Endings of the files that are looked through for what must not be told."""


class PublishError(ValueError):
    """A site cannot be published: one line, and what would do.

    >>> str(PublishError("site is a file: name a folder for the site"))
    'site is a file: name a folder for the site'
    """

    exit_code = 2


@contextmanager
def staging_site(target: Path | None) -> Iterator[Path]:
    """A folder to build a site in, which takes the place of `target` at the end.

    target: a new or empty folder, or an earlier site; None for a site that is only uploaded
    Raises PublishError where the target holds something else; it stays as it is.

    >>> with staging_site(None) as folder:
    ...     folder.is_dir()
    True
    """
    if target is None:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="adbench-site-") as name:
            yield Path(name)
        return
    if target.exists() and not target.is_dir():
        raise PublishError(f"{target} is a file: name a folder for the site")
    if target.is_dir() and any(target.iterdir()) and not (target / INDEX).is_file():
        raise PublishError(f"{target} holds something that is no site: name another folder")
    check_folder(target, "--to")
    staging = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    staging.mkdir(parents=True)
    old = target.with_name(f".{target.name}.{uuid4().hex[:8]}.old")
    try:
        yield staging
        if target.exists():
            target.replace(old)
        staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def build_site(
    results: Path,
    folder: Path,
    *,
    datasets: Sequence[str] = (),
    samples: bool = False,
    figures: bool = False,
) -> tuple[list[Record], list[str]]:
    """Write the site of a folder of results; return the published records, and notes.

    results: with `records`, `pictures` and `samples`        folder: an empty one to write to
    datasets: of which the records are published; all if none is named
    samples: publish the results of single samples too, by which `adbench compare` works
    figures: all charts as SVG, PDF and PNG too
    Raises ReportError where there are no records, PublishError on an unknown dataset and on damaged
    files.

    >>> from adbench.benchmark.leaderboard.example_records import (
    ...     example_records, write_example_records)
    >>> write_example_records("results", example_records())
    >>> Path("site").mkdir()
    >>> records, notes = build_site(Path("results"), Path("site"))
    >>> [name for name in site_files(Path("site")) if name.endswith((".html", ".json"))]
    ['index.html', 'leaderboard.json', 'records/anoddpm-brats-0.json', 'records/pddpm-brats-0.json']
    """
    every = read_records(results / "records")
    notes = [f"left out: {record['reason']}" for record in every if record["status"] == "broken"]
    records = [record for record in every if record["status"] != "broken"]
    present = sorted({record["dataset"]["name"] for record in records})
    for name in datasets:
        if name not in present:
            raise PublishError(f"there is no dataset {name!r} among {', '.join(present)}")
    records = [r for r in records if not datasets or r["dataset"]["name"] in datasets]
    if not records:
        raise ReportError(f"no sound records in {results}")
    redacted = [redact_record(record) for record in records]
    boards = build_leaderboard_set(redacted, results)
    for name, text in {
        "leaderboard.md": markdown(boards),
        "leaderboard.csv": csv(boards),
        "leaderboard.json": as_json(boards),
        "leaderboard.tex": latex(boards),
        "cost.csv": cost_csv(boards),
    }.items():
        atomic_write(folder / name, text)
    page = build_page(
        redacted, results, results=boards, max_charts=math.inf if figures else MAX_CHARTS
    )
    published: list[Record] = [
        _write_record(record, results, folder, samples=samples) for record in redacted
    ]
    for name, chart in (page.charts if figures else {}).items():
        for kind in FIGURE_KINDS:
            atomic_write(folder / "figures" / f"{name}.{kind}", chart.rendered(kind))
    atomic_write(folder / "index.html", _with_links(page.html, site_files(folder)))
    return published, notes


def site_files(folder: Path) -> list[str]:
    """The files of a site by their relative paths, in order.

    >>> from pathlib import Path
    >>> site_files(Path("no/such/folder"))
    []
    """
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def finish_site(folder: Path, weights: Sequence[dict[str, Any]], private: Sequence[Path]) -> None:
    """Write the index of a site, and check that no file tells what must not be told.

    weights: what there is to say of each file of weights
    private: folders whose paths no file may hold
    Raises PublishError that names the file.

    >>> Path("leaking").mkdir()
    >>> _ = Path("leaking/index.html").write_text("<p>from /data/ann/results</p>")
    >>> finish_site(Path("leaking"), [], [Path("/data/ann")])
    Traceback (most recent call last):
    adbench.benchmark.sharing.site.PublishError: index.html tells '/data/ann', which is of this ...
    """
    files = {name: file_sha256(folder / name) for name in site_files(folder)}
    content = {"schema": 1, "weights": list(weights), "files": files}
    atomic_write(folder / INDEX, json.dumps(content, indent=1, sort_keys=True) + "\n")
    for name in site_files(folder):
        if Path(name).suffix not in SCANNED:
            continue
        if text := find_private((folder / name).read_bytes(), private):
            raise PublishError(
                f"{name} tells {text!r}, which is of this machine: nothing is published"
            )


def _write_record(record: Record, results: Path, folder: Path, *, samples: bool) -> dict[str, Any]:
    """Write a record and the files that it names and that are published."""
    parts = ("pictures", "samples") if samples else ("pictures",)
    digests = {}
    for name in record.get("files") or {}:
        part, _, file = name.partition("/")
        if part not in parts or "/" in file or file in ("", "..", "."):
            continue
        try:
            content = read_sealed(record, results / name)
        except DamagedFile as error:
            raise PublishError(str(error)) from None
        except OSError as error:
            raise PublishError(f"{results / name} cannot be read: {error.strerror}") from error
        atomic_write(folder / name, content)
        digests[name] = hashlib.sha256(content).hexdigest()
    content = {key: value for key, value in record.items() if key != "file"}
    if "files" in content:
        content["files"] = digests
    content = json.loads(json.dumps(content))
    content["seal"] = record_seal(content)
    atomic_write(folder / "records" / str(record["file"]), record_text(content))
    return content | {"file": record["file"]}


def _with_links(page: str, files: Sequence[str]) -> str:
    """A page with a list of the site's files at its end, by relative links."""
    items = "".join(f'<li><a href="{escape(name)}">{escape(name)}</a></li>\n' for name in files)
    section = f'<section id="files"><h2>Files</h2>\n<ul class="note">\n{items}</ul>\n</section>\n'
    before, main, after = page.rpartition("</main>")
    return f"{before}{section}{main}{after}"
