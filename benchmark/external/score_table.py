"""Tables of scores: a CSV file with a row per sample, named by its key."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from ...datasets.io.csv import read_rows

SCORES_FILE = "scores.csv"
"""The table that is read, and written, beside the maps of a folder."""


@dataclass(frozen=True)
class ScoreRow:
    """The numbers of one sample. score: higher is more anomalous

    psnr, ssim: of the reconstruction of a normal sample; None where there is none

    >>> from adbench.benchmark.external.score_table import ScoreRow, scores_csv
    >>> print(scores_csv([(0, "p1", ScoreRow(0.5, psnr=30.0))]), end="")
    key,score,psnr,ssim
    p1,0.5,30.0,
    """

    score: float
    psnr: float | None = None
    ssim: float | None = None


def read_scores(path: Path) -> tuple[dict[int, dict[str, ScoreRow]], list[str]]:
    """Read a table with the columns key and score, and perhaps level, psnr and ssim.

    Returns the rows by level (0 where there is no such column) and key, and a problem for every row
    that is none. Raises DataError on a file that is no such table.

    >>> _ = Path("scores.csv").write_text("key,score\\np1/z003,0.25\\np1/z004,high\\n")
    >>> rows, problems = read_scores(Path("scores.csv"))
    >>> rows[0]["p1/z003"].score, problems
    (0.25, ["scores.csv line 3: score is 'high', no finite number"])
    """
    rows: dict[int, dict[str, ScoreRow]] = {}
    problems: list[str] = []
    for line, row in read_rows(path, ["key", "score"], path.name):
        place, key, numbers = f"{path.name} line {line}", row["key"].strip(), dict[str, float]()
        level = row.get("level", "").strip() or "0"
        if not (level.isascii() and level.isdigit() and int(level) <= 1000):
            problems.append(f"{place}: level is {level!r}, no integer in 0..1000")
            continue
        for name in (field.name for field in fields(ScoreRow)):
            text = row.get(name, "").strip()
            if not text and name != "score":
                continue
            number = _number(text)
            if number is None:
                problems.append(f"{place}: {name} is {text!r}, no finite number")
            else:
                numbers[name] = number
        if "score" not in numbers:
            continue
        if key in rows.setdefault(int(level), {}):
            problems.append(f"{place} names {key} again")
        rows[int(level)][key] = ScoreRow(**numbers)
    return rows, problems


def scores_csv(rows: Iterable[tuple[int, str, ScoreRow]], *, levels: bool = False) -> str:
    """The table of (level, key, numbers) as text that `read_scores` reads to the same bits.

    levels: with a column of levels

    >>> print(scores_csv([(0, "a", ScoreRow(0.1))]), end="")
    key,score,psnr,ssim
    a,0.1,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", *(["level"] if levels else []), "score", "psnr", "ssim"])
    for level, key, row in rows:
        numbers = ["" if n is None else repr(n) for n in (row.score, row.psnr, row.ssim)]
        writer.writerow([key, *([level] if levels else []), *numbers])
    return text.getvalue()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
