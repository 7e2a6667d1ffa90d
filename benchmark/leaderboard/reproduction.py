"""Comparison of published results with records: reproduced, within the interval, not, or why it
cannot be tested. The numbers and their sources are in published.yaml.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..registry.imports import did_you_mean
from ..registry.yaml_lines import read_yaml_file
from .records import Record, metric_value

PUBLISHED_PATH = Path(__file__).with_name("published.yaml")
OWN_CLAIM, RERUN = "own claim", "third-party re-run"
"""Kinds of tables: by the authors of a method, and by others."""

REPRODUCED, WITHIN, NOT, CANNOT = "reproduced", "within interval", "not", "cannot test"


class ReproduceError(ValueError):
    """A paper or a table that there is not: one line, and which there are.

    >>> from adbench.benchmark.leaderboard.reproduction import ReproduceError
    >>> from adbench.benchmark.leaderboard.reproduction import reproduce
    >>> try:
    ...     reproduce("pdpm", [])
    ... except ReproduceError as error:
    ...     print(error)
    unknown paper 'pdpm'. Did you mean 'pddpm'? There are ...
    """


@dataclass(frozen=True)
class ReproductionResult:
    """A published value, the same metric in the records, and whether they agree.

    published, value, low, high, tolerance: in 0..1; None where there is none
    tolerance: how far apart the two may be and still count as the same
    verdict: reproduced | within interval | not | cannot test

    >>> from adbench.benchmark.leaderboard.reproduction import ReproductionResult
    >>> result = ReproductionResult(
    ...     "mvtec", "mvtec/bottle", "image AUROC", 0.99, 0.985, 0.97, 1.0, 0.001,
    ...     "within interval", "the published figure lies in the 95 % interval")
    >>> print(result.sentence())
    within interval: mvtec/bottle image AUROC, 0.99 published, 0.9850 here, [0.9700, 1.0000], the
    published figure lies in the 95 % interval
    """

    table: str
    dataset: str
    metric: str
    published: float | None
    value: float | None
    low: float | None
    high: float | None
    tolerance: float | None
    verdict: str
    reason: str
    records: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """The result in one sentence."""
        parts = [] if self.dataset == "-" else [f"{self.dataset} {self.metric}"]
        if self.published is not None:
            parts.append(f"{self.published:.4g} published")
        if self.value is not None:
            parts.append(f"{self.value:.4f} here")
        if self.low is not None and self.high is not None:
            parts.append(f"[{self.low:.4f}, {self.high:.4f}]")
        return f"{self.verdict}: {', '.join([*parts, self.reason])}"


def read_published(path: Path = PUBLISHED_PATH) -> dict[str, Any]:
    """All papers of the file, by name.

    >>> from adbench.benchmark.leaderboard.reproduction import read_published
    >>> "ddad" in read_published()
    True
    """
    return read_yaml_file(path, own=path == PUBLISHED_PATH)


def published_values(method: str, papers: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The published figures of one method, by paper, table and dataset, each with its source.

    A table that could not be read says so, and gives no number.

    >>> from adbench.benchmark.leaderboard.reproduction import published_values
    >>> table = {"metrics": {"AUROC": "image_auroc"}, "source": "table 1",
    ...          "rows": [{"method": "ddad", "dataset": "mvtec", "values": [99.8]}]}
    >>> published_values("ddad", {"ddad": {"tables": {"mvtec": table}}})
    {'ddad:mvtec mvtec': 'AUROC 99.8 (table 1)'}
    """
    lines: dict[str, str] = {}
    for name, paper in (read_published() if papers is None else papers).items():
        for title, table in paper["tables"].items():
            if table.get("cannot") and name == method:
                lines[f"{name}:{title}"] = table["cannot"]
            for row in (row for row in table.get("rows", []) if row["method"] == method):
                values = zip(table["metrics"], row["values"], strict=True)
                figures = ", ".join(f"{k} {value:g}" for k, value in values if value is not None)
                args = " ".join(f"{k}={v}" for k, v in row.get("args", {}).items())
                where = " ".join(filter(None, (f"{name}:{title}", row["dataset"], args)))
                line = f"{figures} ({table['source']})"
                lines[where] = f"{lines[where]}; {line}" if where in lines else line
    return lines


@dataclass(frozen=True)
class FigureSources:
    """One figure of a method by who measured it, in 0..1.

    own: what its authors claim      rerun: what others measured, of several papers and tables
    ours: of the records that may be compared with any of these; None without one

    >>> from adbench.benchmark.leaderboard.reproduction import FigureSources
    >>> print(FigureSources("diad", "mvtec", "image AUROC", (0.972,), (0.889,), None).sentence())
    diad mvtec image AUROC: own claim 0.972, third-party re-run 0.889, here -
    """

    method: str
    dataset: str
    metric: str
    own: tuple[float, ...]
    rerun: tuple[float, ...]
    ours: float | None

    def sentence(self) -> str:
        """The figures side by side, in one line."""
        own, rerun = (
            " / ".join(f"{v:.4g}" for v in values) or "-" for values in (self.own, self.rerun)
        )
        ours = "-" if self.ours is None else f"{self.ours:.4f}"
        return (
            f"{self.method} {self.dataset} {self.metric}: own claim {own}, "
            f"third-party re-run {rerun}, here {ours}"
        )


def figures_side_by_side(
    paper: str, records: Sequence[Record], papers: Mapping[str, Any] | None = None
) -> list[FigureSources]:
    """The figures of one paper's tables beside those of all other papers on the same method,
    dataset and metric, and of the records; in the order of the paper's rows.

    paper: a name in `papers`
    papers: as `read_published` returns them; None for these

    >>> from adbench.benchmark.leaderboard.reproduction import figures_side_by_side
    >>> [round(value, 3) for value in figures_side_by_side("diad", [])[0].rerun]  # of ADer
    [0.889]
    """
    papers = read_published() if papers is None else papers
    figures: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    own_places = [place for place, *_ in _figures({paper: papers[paper]})]
    for place, kind, value in _figures(papers):
        figures.setdefault(place, {}).setdefault(kind, []).append(value)
    results: dict[tuple[str, str, str], float] = {}
    for name in papers:
        for table in papers[name]["tables"].values():
            for row in table.get("rows", []):
                for k, title in enumerate(table["metrics"]):
                    if row["values"][k] is not None:
                        finding = _check_row(name, table, row, k, records, None)
                        if finding.value is not None:
                            place = (row["method"], _dataset_of(row), title)
                            results[place] = finding.value
    return [
        FigureSources(
            *place,
            tuple(figures[place].get(OWN_CLAIM, ())),
            tuple(figures[place].get(RERUN, ())),
            results.get(place),
        )
        for place in dict.fromkeys(own_places)
    ]


def _figures(papers: Mapping[str, Any]) -> list[tuple[tuple[str, str, str], str, float]]:
    """((method, dataset, metric), kind, value in 0..1) of every published figure."""
    return [
        (
            (row["method"], _dataset_of(row), title),
            table.get("kind", OWN_CLAIM),
            value / table["unit"],
        )
        for paper in papers.values()
        for table in paper["tables"].values()
        for row in table.get("rows", [])
        for title, value in zip(table["metrics"], row["values"], strict=True)
        if value is not None
    ]


def _dataset_of(row: Mapping[str, Any]) -> str:
    """The dataset of a row, with the arguments of the method by which it is another figure."""
    return " ".join([row["dataset"], *(f"{k}={v}" for k, v in row.get("args", {}).items())])


def reproduce(
    name: str,
    records: Sequence[Record],
    papers: Mapping[str, Any] | None = None,
    methods: Collection[str] | None = None,
) -> tuple[dict[str, Any], list[ReproductionResult]]:
    """Compare the figures of a paper's tables with records; return the paper, and a result for each
    figure.

    name: `ddad` or `ddad:mvtec`
    papers: as `read_published` returns them; None for these
    methods: names that can be run; None where that is unknown

    Raises ReproduceError on an unknown paper or table.

    >>> from adbench.benchmark.leaderboard.reproduction import reproduce
    >>> paper, results = reproduce("ddad", [])
    >>> {result.verdict for result in results}
    {'cannot test'}
    """
    papers = read_published() if papers is None else papers
    name, _, table = name.partition(":")
    paper = papers[_require_known(name, list(papers), "paper")]
    chosen = (
        [_require_known(table, list(paper["tables"]), "table")] if table else list(paper["tables"])
    )
    return paper, [
        finding
        for each in chosen
        for finding in _check_table(each, paper["tables"][each], records, methods)
    ]


def _require_known(name: str, names: list[str], what: str) -> str:
    if name in names:
        return name
    choices = f"There are {', '.join(names)}"
    raise ReproduceError(f"unknown {what} {name!r}{did_you_mean(name, names)} {choices}")


def _check_table(
    name: str, table: Mapping[str, Any], records: Sequence[Record], methods: Collection[str] | None
) -> list[ReproductionResult]:
    if reason := table.get("cannot"):
        return [ReproductionResult(name, "-", "-", None, None, None, None, None, CANNOT, reason)]
    results = [
        _check_row(name, table, row, k, records, methods)
        for row in table["rows"]
        for k in range(len(table["metrics"]))
        if row["values"][k] is not None
    ]
    for k, printed in enumerate(table.get("mean", [])):
        title = list(table["metrics"])[k]
        findings = [finding for finding in results if finding.metric == title]
        results.append(_check_mean(name, table, printed, findings))
    return results


def _check_row(
    name: str,
    table: Mapping[str, Any],
    row: Mapping[str, Any],
    k: int,
    records: Sequence[Record],
    methods: Collection[str] | None,
) -> ReproductionResult:
    title, metric = list(table["metrics"].items())[k]
    unit = table["unit"]
    published = row["values"][k] / unit
    args = "".join(f" {key}={value}" for key, value in row.get("args", {}).items())
    note = f" ({row['note']})" if "note" in row else ""
    where = f"{row['dataset']}{args}{note}"

    def cannot(reason: str) -> ReproductionResult:
        return ReproductionResult(
            name, where, title, published, None, None, None, None, CANNOT, reason
        )

    if isinstance(metric, Mapping):
        return cannot(f"another protocol: {metric['why']}")
    if methods is not None and row["method"] not in methods:
        return cannot(f"adbench has no method {row['method']} yet (adbench list methods)")
    matching, reason = _matching_records(row, table.get("needs", {}), metric, records)
    if not matching:
        return cannot(reason)
    values = [value for record in matching if (value := metric_value(record, metric)) is not None]
    if len({record["dataset"]["fingerprint"] for record in matching}) > 1:
        return cannot("records on different data: keep those of one preparation")
    value = statistics.fmean(values)
    bounds = {
        part: [metric_value(record, metric, part) for record in matching]
        for part in ("low", "high")
    }
    lows, highs = ([b for b in bounds[part] if b is not None] for part in ("low", "high"))
    low, high = (min(lows), max(highs)) if lows and highs else (None, None)
    seeds = table.get("sd_over") == "seeds"  # over slices it says nothing of another training
    sd = (row["sd"][k] or 0.0) / unit if seeds and "sd" in row else 0.0
    ours = statistics.stdev(values) if len(values) > 1 else 0.0
    tolerance = max(table["rounding"] / unit / 2, sd, ours)
    files = tuple(str(record.get("file", "?")) for record in matching)
    verdict, why = _verdict(published, value, low, high, tolerance)
    return ReproductionResult(
        name, where, title, published, value, low, high, tolerance, verdict, why, files
    )


def _verdict(
    published: float, value: float, low: float | None, high: float | None, tolerance: float
) -> tuple[str, str]:
    difference = abs(value - published)
    if difference <= tolerance + 1e-12:
        return REPRODUCED, f"{difference:.4f} apart, {tolerance:.4f} allowed"
    if low is not None and high is not None and low <= published <= high:
        return WITHIN, "the published figure lies in the 95 % interval"
    why = "outside the 95 % interval" if low is not None else "and there is no interval"
    return NOT, f"{difference:.4f} apart, {tolerance:.4f} allowed, {why}"


def _matching_records(
    row: Mapping[str, Any], needs: Mapping[str, Any], metric: str, records: Sequence[Record]
) -> tuple[list[Record], str]:
    """The records that may be compared; where there are none, what comes nearest, in words."""
    matching = [
        r
        for r in records
        if r["method"]["name"] == row["method"] and _is_on_dataset(r, row["dataset"])
    ]
    if not matching:
        return [], (
            f"{row['method']} was not run on {row['dataset']}: "
            f"adbench run -m {row['method']} -d {row['dataset']} --profile paper"
        )
    reason = ""
    for refuse in (
        lambda r: r["status"] != "ok" and f"{r['status']}: {r['reason']}",
        lambda r: r["partial"] and f"a partial run, of {r['partial']} samples",
        lambda r: r["dataset"]["synthetic"] and "made-up data",
        lambda r: _mismatch(row.get("args", {}), r["method"]["args"], "argument "),
        lambda r: _mismatch(needs, {field: _lookup(r, field) for field in needs}, ""),
        lambda r: metric_value(r, metric) is None and f"the record has no {metric}",
    ):
        remaining = [record for record in matching if not refuse(record)]
        if not remaining:
            reason = str(refuse(matching[0]))
            return [], f"{matching[0].get('file', 'record')}: {reason}"
        matching = remaining
    return matching, ""


def _is_on_dataset(record: Record, dataset: str) -> bool:
    data = record["dataset"]
    name, _, category = dataset.partition("/")
    same = data["name"] == name and bool(category) and data["args"].get("category") == category
    return data["name"] == dataset or same


def _mismatch(expected: Mapping[str, Any], actual: Mapping[str, Any], what: str) -> str:
    return "; ".join(
        f"{what}{key} is {actual.get(key)!r}, and the published number's {value!r}"
        for key, value in expected.items()
        if actual.get(key) != value
    )


def _lookup(record: Record, field: str) -> Any:
    value: Any = record
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _check_mean(
    name: str, table: Mapping[str, Any], printed: float, findings: Sequence[ReproductionResult]
) -> ReproductionResult:
    published, title = printed / table["unit"], findings[0].metric
    values = [finding.value for finding in findings if finding.value is not None]
    if len(values) < len(findings):
        reason = f"{len(findings) - len(values)} of {len(findings)} cannot be tested"
        return ReproductionResult(
            name, "mean", title, published, None, None, None, None, CANNOT, reason
        )
    value = statistics.fmean(values)
    tolerance = table["rounding"] / table["unit"] / 2
    verdict, why = _verdict(published, value, None, None, tolerance)
    files = tuple(file for finding in findings for file in finding.records)
    return ReproductionResult(
        name, "mean", title, published, value, None, None, tolerance, verdict, why, files
    )
