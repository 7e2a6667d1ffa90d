"""Published numbers beside the records that are here: reproduced, within the interval, not, or why
it cannot be told. The numbers and their sources are in published.yaml.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ..registry.imports import did_you_mean
from .records import Record, metric_value

PUBLISHED_PATH = Path(__file__).with_name("published.yaml")
REPRODUCED, WITHIN, NOT, CANNOT = "reproduced", "within interval", "not", "cannot test"


class ReproduceError(ValueError):
    """A paper or a table that there is not: one line, and which there are."""


@dataclass(frozen=True)
class ReproductionResult:
    """One published figure and what the records say of it.

    published, value, low, high, tolerance: in 0..1; None where there is none
    tolerance: how far apart the two may be and still count as the same
    verdict: reproduced | within interval | not | cannot test
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
        return asdict(self)

    def sentence(self) -> str:
        said = [] if self.dataset == "-" else [f"{self.dataset} {self.metric}"]
        if self.published is not None:
            said.append(f"{self.published:.4g} published")
        if self.value is not None:
            said.append(f"{self.value:.4f} here")
        if self.low is not None and self.high is not None:
            said.append(f"[{self.low:.4f}, {self.high:.4f}]")
        return f"{self.verdict}: {', '.join([*said, self.reason])}"


def read_published(path: Path = PUBLISHED_PATH) -> dict[str, Any]:
    """All papers of the file, by name."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def published_values(method: str, papers: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The published figures of one method: "ddad:mvtec mvtec/carpet" -> "image AUROC 99.3, … (where
    they are printed)". A table that could not be read says so, and gives no number."""
    lines: dict[str, str] = {}
    for name, paper in (read_published() if papers is None else papers).items():
        for title, table in paper["tables"].items():
            if table.get("cannot") and name == method:
                lines[f"{name}:{title}"] = table["cannot"]
            for row in (row for row in table.get("rows", []) if row["method"] == method):
                told = zip(table["metrics"], row["values"], strict=True)
                figures = ", ".join(f"{k} {value:g}" for k, value in told if value is not None)
                args = " ".join(f"{k}={v}" for k, v in row.get("args", {}).items())
                where = " ".join(filter(None, (f"{name}:{title}", row["dataset"], args)))
                line = f"{figures} ({table['source']})"
                lines[where] = f"{lines[where]}; {line}" if where in lines else line
    return lines


def reproduce(
    name: str,
    records: Sequence[Record],
    papers: Mapping[str, Any] | None = None,
    methods: Collection[str] | None = None,
) -> tuple[dict[str, Any], list[ReproductionResult]]:
    """The paper, and a finding for each figure of its tables.

    name: `ddad` or `ddad:mvtec`      methods: what can be run at all, where that is known
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


def _require_known(name: str, known: list[str], what: str) -> str:
    if name in known:
        return name
    there = f"There are {', '.join(known)}"
    raise ReproduceError(f"unknown {what} {name!r}{did_you_mean(name, known)} {there}")


def _check_table(
    name: str, table: Mapping[str, Any], records: Sequence[Record], methods: Collection[str] | None
) -> list[ReproductionResult]:
    if reason := table.get("cannot"):
        return [ReproductionResult(name, "-", "-", None, None, None, None, None, CANNOT, reason)]
    found = [
        _check_row(name, table, row, k, records, methods)
        for row in table["rows"]
        for k in range(len(table["metrics"]))
        if row["values"][k] is not None
    ]
    for k, printed in enumerate(table.get("mean", [])):
        title = list(table["metrics"])[k]
        mine = [finding for finding in found if finding.metric == title]
        found.append(_check_mean(name, table, printed, mine))
    return found


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
    own, reason = _matching_records(row, table.get("needs", {}), metric, records)
    if not own:
        return cannot(reason)
    values = [value for record in own if (value := metric_value(record, metric)) is not None]
    if len({record["dataset"]["fingerprint"] for record in own}) > 1:
        return cannot("records on different data: keep those of one preparation")
    value = statistics.fmean(values)
    bounds = {
        part: [metric_value(record, metric, part) for record in own] for part in ("low", "high")
    }
    lows, highs = ([b for b in bounds[part] if b is not None] for part in ("low", "high"))
    low, high = (min(lows), max(highs)) if lows and highs else (None, None)
    seeds = table.get("sd_over") == "seeds"  # over slices it says nothing of another training
    sd = row["sd"][k] / unit if seeds and "sd" in row else 0.0
    ours = statistics.stdev(values) if len(values) > 1 else 0.0
    allowed = max(table["rounding"] / unit / 2, sd, ours)
    files = tuple(str(record.get("file", "?")) for record in own)
    verdict, why = _verdict(published, value, low, high, allowed)
    return ReproductionResult(
        name, where, title, published, value, low, high, allowed, verdict, why, files
    )


def _verdict(
    published: float, value: float, low: float | None, high: float | None, allowed: float
) -> tuple[str, str]:
    apart = abs(value - published)
    if apart <= allowed + 1e-12:
        return REPRODUCED, f"{apart:.4f} apart, {allowed:.4f} allowed"
    if low is not None and high is not None and low <= published <= high:
        return WITHIN, "the published figure lies in the 95 % interval"
    why = "outside the 95 % interval" if low is not None else "and there is no interval"
    return NOT, f"{apart:.4f} apart, {allowed:.4f} allowed, {why}"


def _matching_records(
    row: Mapping[str, Any], needs: Mapping[str, Any], metric: str, records: Sequence[Record]
) -> tuple[list[Record], str]:
    """The records that may be compared; where there are none, what comes nearest, in words."""
    own = [
        r
        for r in records
        if r["method"]["name"] == row["method"] and _is_on_dataset(r, row["dataset"])
    ]
    if not own:
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
        lambda r: _mismatch(needs, {place: _lookup(r, place) for place in needs}, ""),
        lambda r: metric_value(r, metric) is None and f"the record has no {metric}",
    ):
        left = [record for record in own if not refuse(record)]
        if not left:
            reason = str(refuse(own[0]))
            return [], f"{own[0].get('file', 'record')}: {reason}"
        own = left
    return own, ""


def _is_on_dataset(record: Record, dataset: str) -> bool:
    data = record["dataset"]
    name, _, category = dataset.partition("/")
    same = data["name"] == name and bool(category) and data["args"].get("category") == category
    return data["name"] == dataset or same


def _mismatch(wanted: Mapping[str, Any], given: Mapping[str, Any], what: str) -> str:
    return "; ".join(
        f"{what}{key} is {given.get(key)!r}, and the published number's {value!r}"
        for key, value in wanted.items()
        if given.get(key) != value
    )


def _lookup(record: Record, place: str) -> Any:
    found: Any = record
    for part in place.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _check_mean(
    name: str, table: Mapping[str, Any], printed: float, mine: Sequence[ReproductionResult]
) -> ReproductionResult:
    published, title = printed / table["unit"], mine[0].metric
    values = [finding.value for finding in mine if finding.value is not None]
    if len(values) < len(mine):
        reason = f"{len(mine) - len(values)} of {len(mine)} cannot be tested"
        return ReproductionResult(
            name, "mean", title, published, None, None, None, None, CANNOT, reason
        )
    value = statistics.fmean(values)
    allowed = table["rounding"] / table["unit"] / 2
    verdict, why = _verdict(published, value, None, None, allowed)
    files = tuple(file for finding in mine for file in finding.records)
    return ReproductionResult(
        name, "mean", title, published, value, None, None, allowed, verdict, why, files
    )
