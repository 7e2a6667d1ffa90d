"""Results of runs, as frames, tables, comparisons and plots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..leaderboard.leaderboard import Leaderboard
from ..leaderboard.rankings import LeaderboardSet, build_leaderboard_set
from ..leaderboard.records import Record, ReportError, read_records

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from ..leaderboard.comparison import Comparison
    from ..leaderboard.reproduction import ReproductionResult
    from ..scheduling.status import Status


class Results:
    """The records of a folder of results, and what can be made of them.

    folder: where `run` wrote        records: one mapping per experiment, as its JSON file has it

    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import adbench
    >>> from adbench.benchmark.leaderboard.example_records import example_records
    >>> with TemporaryDirectory() as folder:
    ...     (Path(folder) / "records").mkdir()
    ...     for record in example_records():
    ...         file = record.pop("file")
    ...         _ = (Path(folder) / "records" / file).write_text(json.dumps(record))
    ...     results = adbench.load_results(folder)
    >>> len(results), results.leaderboard("brats").to_frame()["pixel_ap"].tolist()
    (2, [0.455, 0.32])
    >>> results.compare("anoddpm", "pddpm", metric="image_auroc")[0].difference.verdict
    'better'
    """

    def __init__(self, folder: str | Path, names: Sequence[str] | None = None) -> None:
        """names: of the experiments to read; None for all in the folder. Raises ReportError where
        there are none."""
        self.folder = Path(folder)
        records = read_records(self.folder / "records")
        self.records: list[Record] = [
            record
            for record in records
            if names is None or str(record["file"]).removesuffix(".json") in names
        ]
        if not self.records:
            raise ReportError(f"no records of this run in {self.folder}")

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}, {len(self)} records)"

    def paths(self) -> list[Path]:
        """The files of the records, as `adbench.load` takes them."""
        return [self.folder / "records" / str(record["file"]) for record in self.records]

    @cached_property
    def leaderboard_set(self) -> LeaderboardSet:
        """The leaderboards and the rankings over datasets, built when they are first needed."""
        return build_leaderboard_set(self.records, self.folder)

    def leaderboards(self) -> list[Leaderboard]:
        """A leaderboard for each dataset and protocol: whole runs before partial ones."""
        return self.leaderboard_set.leaderboards

    def leaderboard(self, dataset: str | None = None) -> Leaderboard:
        """The leaderboard of a dataset, or the only one there is.

        Raises ReportError where none or several fit, with the names to choose from.
        """
        boards = [
            board
            for board in self.leaderboards()
            if dataset is None or board.entries[0].record["dataset"]["name"] == dataset
        ]
        if len(boards) == 1:
            return boards[0]
        titles = ", ".join(
            f"{board.entries[0].record['dataset']['name']} ({board.title})"
            for board in boards or self.leaderboards()
        )
        raise ReportError(f"{len(boards)} leaderboards fit {dataset!r}; there are {titles}")

    def to_frame(self) -> pandas.DataFrame:
        """Every record of every leaderboard, one row each, with all metrics and their intervals."""
        import pandas

        return pandas.concat([board.to_frame() for board in self.leaderboards()], ignore_index=True)

    def _repr_html_(self) -> str:
        """Every leaderboard, for a notebook."""
        return "\n".join(board._repr_html_() for board in self.leaderboards())

    def to_markdown(self) -> str:
        """All leaderboards and rankings as Markdown."""
        from ..report.export import markdown

        return markdown(self.leaderboard_set)

    def to_latex(self) -> str:
        """All leaderboards and rankings as LaTeX tables (booktabs)."""
        from ..report.latex import latex

        return latex(self.leaderboard_set)

    def write(self, folder: str | Path | None = None, *, figures: bool = False) -> list[Path]:
        """Write leaderboards as Markdown, CSV, JSON, LaTeX and an HTML page; return the paths.

        folder: where to; None for the folder of the results
        figures: write all charts too, as SVG, PDF and PNG in `figures`
        """
        from ..report.export import write_report

        target = self.folder if folder is None else Path(folder)
        return write_report(
            self.records, target, self.leaderboard_set, figures=figures, source=self.folder
        )

    def compare(
        self,
        a: str,
        b: str,
        *,
        dataset: str | None = None,
        metric: str | None = None,
        margin: float = 0.0,
    ) -> list[Comparison]:
        """Paired differences of two methods on the same samples, a minus b, with 95 % intervals.

        a, b: methods, names of records, or folders of results        dataset: only this one
        metric: `pixel_ap` or another; None for pixel AP where there is one, else image AUROC
        margin: what counts as no difference
        """
        from ..leaderboard.comparison import compare

        return compare(
            a, b, self.folder, self.records, dataset=dataset, metric=metric, margin=margin
        )

    def reproduce(self, paper: str, **options: Any) -> list[ReproductionResult]:
        """Published numbers of a paper beside these records: reproduced, not, or why unknown.

        paper: a key of published.yaml, or key:table
        """
        from ..leaderboard.reproduction import reproduce

        return reproduce(paper, self.records, **options)[1]

    def plot_levels(self, metric: str | None = None, *, axes: Axes | None = None) -> Axes:
        """A metric on the test split over the noise level, a line per method; the chosen level is
        marked. Methods without levels are horizontal lines.

        metric: `pixel_ap` or `image_auroc`; None for the first that any method has
        axes: matplotlib's to draw on; None for new ones
        """
        from .plots import plot_levels

        return plot_levels(self.records, metric, axes)


def run_status(folder: str | Path = "results", store: str | Path | None = None) -> Status:
    """What is done, running, or left unfinished: records and jobs of a folder and its store.

    folder: where `run` writes        store: as for open_store

    >>> import adbench
    >>> adbench.run_status("no/such/folder", store="no/such/store").lines()
    ['no records; 0 running, 0 left']
    """
    from ..scheduling.status import read_status
    from .storage import open_store

    return read_status(Path(folder), open_store(store).root)


def load_results(folder: str | Path = "results") -> Results:
    """All results that runs have written to a folder. Raises ReportError where there are none.

    >>> import adbench
    >>> adbench.load_results("no/such/folder")
    Traceback (most recent call last):
    adbench.benchmark.leaderboard.records.ReportError: no records in no/such/folder/records: ...
    """
    return Results(folder)
