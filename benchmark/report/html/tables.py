"""What the page shows of a board, in words: each figure with the place in a record it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...leaderboard.columns import LEVEL_RULE_NAMES, LOWER_IS_BETTER, METRICS, TITLES
from ...leaderboard.entry import Entry
from ...leaderboard.leaderboard import Leaderboard, binning_error_text
from ...leaderboard.records import Record, metric_value
from ...leaderboard.seed_variation import COLUMN_TITLES
from ...leaderboard.text import number_text
from .chart import STYLES, letter

MAIN_METRICS = (
    *("image_auroc", "image_ap", "pixel_ap", "pixel_auroc", "pixel_aupro30"),
    *("pixel_dice", "pixel_dice_oracle"),
)
COST_TITLES = {
    "evaluations_per_image": "evals / image",
    "gflops_per_image": "GFLOP / image",
    "seconds_per_image": "s / image",
    "train_steps": "train steps",
    "train_seconds": "train s",
    "parameters": "parameters",
    "peak_memory_mb": "peak MB",
}
LEVEL_SETTINGS = {"at_published": "published", "at_oracle": "oracle"}


class TableCell(NamedTuple):
    """text and bounds: what is read; sort: what is sorted by, empty where there is nothing; source:
    the record and the place in it; kind: `text`, `oracle` or nothing; best: whether it is bold."""

    text: str
    source: str = ""
    sort: str = ""
    bounds: str = ""
    kind: str = ""
    best: bool = False


class ColumnHead(NamedTuple):
    """The heading of a column: its text, how it is sorted, and whether lower values are better."""

    text: str
    kind: str = "number"
    lower: bool = False


class TableLine(NamedTuple):
    """A row of a table; letter and style: in the charts; record: the anchor of its record."""

    name: str
    letter: str
    style: int
    record: str
    baseline: bool
    below: str
    cells: list[TableCell]


@dataclass(frozen=True)
class Table:
    """A table of the page: a caption, headings and lines of cells."""

    caption: str
    heads: list[ColumnHead]
    lines: list[TableLine]
    first: str = "method"


def anchor(index: int) -> str:
    """Return the name of the place on the page where an entry of a leaderboard is."""
    return f"record-{index}"


def main_table(
    board: Leaderboard, anchors: Mapping[int, str], verdicts: Mapping[int, str], by: str
) -> Table:
    """The board itself. verdicts: what differences in `by` say of rows, by their place."""
    shown = [
        name for name in MAIN_METRICS if any(row.value(name) is not None for row in board.done)
    ]
    heads = [
        ColumnHead("rank"),
        *([ColumnHead(f"against the best in {by}", "text")] if verdicts else []),
        *(ColumnHead(word, "text") for word in ("profile", "seed", "level")),
        *(ColumnHead(TITLES[name], lower=name in LOWER_IS_BETTER) for name in shown),
        *(
            ColumnHead(COST_TITLES[name], lower=True)
            for name in ("evaluations_per_image", "train_steps")
        ),
    ]
    lines = []
    for k, row in enumerate(board.done):
        record = row.record
        cells = [metric_cell(record, "rank by " + TITLES[board.metric], row.rank)]
        cells += [TableCell(verdicts.get(k, "-"), kind="text")] if verdicts else []
        cells += [_word_cell(record, "profile"), _word_cell(record, "seed"), _level_cell(record)]
        cells += [_interval_cell(board, record, name) for name in shown]
        cells += [_cost_cell(record, name) for name in ("evaluations_per_image", "train_steps")]
        lines.append(_table_line(row, k, anchors, cells))
    return Table(
        f"Sorted by {TITLES[board.metric]}, best first; 95 % intervals beneath the figures.",
        heads,
        lines,
    )


def all_metrics_table(board: Leaderboard, anchors: Mapping[int, str]) -> Table:
    """Every metric of every row, at the chosen level and at the published and the oracle's."""
    candidates = [
        *METRICS,
        *sorted({n for row in board.done for n in row.record["metrics"]} - {*METRICS}),
    ]
    shown = [name for name in candidates if any(row.value(name) is not None for row in board.done)]
    heads = [ColumnHead("at", "text")]
    heads += [
        ColumnHead(str(TITLES.get(name, name)), lower=name in LOWER_IS_BETTER) for name in shown
    ]
    lines = []
    for k, row in enumerate(board.done):
        record = row.record
        cells = [
            TableCell("chosen level", kind="text"),
            *(_interval_cell(board, record, n) for n in shown),
        ]
        lines.append(_table_line(row, k, anchors, cells))
        for part, word in LEVEL_SETTINGS.items():
            values = record.get(part) or {}
            if values:
                cells = [TableCell(f"{word} level {record['level'].get(word)}", kind="text")]
                cells += [metric_cell(record, f"{part}.{name}", values.get(name)) for name in shown]
                lines.append(_table_line(row, k, anchors, cells))
    return Table(
        "Every figure; what is at the oracle level looked at test to choose it.", heads, lines
    )


def cost_table(board: Leaderboard, anchors: Mapping[int, str]) -> Table:
    """Return what each method cost: network calls, operations, seconds and memory."""
    heads = [ColumnHead(title, lower=True) for title in COST_TITLES.values()] + [
        ColumnHead("device", "text")
    ]
    lines = [
        _table_line(
            row,
            k,
            anchors,
            [
                *(_cost_cell(row.record, name) for name in COST_TITLES),
                _word_cell(row.record, "device"),
            ],
        )
        for k, row in enumerate(board.done)
    ]
    return Table(
        "Seconds and memory are of the devices named, and differ from run to run.", heads, lines
    )


def strata_table(board: Leaderboard, metric: str) -> Table | None:
    """The figure of each stratum of abnormal samples, a column for each method."""
    counts: dict[str, Any] = {}
    for row in board.done:
        for name, facts in (row.record.get("strata") or {}).items():
            if facts.get(metric) is not None:
                counts.setdefault(name, facts.get("n"))
    if not counts:
        return None
    lines = []
    for name, count in sorted(counts.items()):
        cells = [TableCell(str(count), sort=str(count))]
        for row in board.done:
            value = ((row.record.get("strata") or {}).get(name) or {}).get(metric)
            cells.append(metric_cell(row.record, f"strata.{name}.{metric}", value))
        lines.append(TableLine(name, "", 0, "", False, "", cells))
    heads = [
        ColumnHead("samples"),
        *(ColumnHead(f"{letter(k)} {r.name}") for k, r in enumerate(board.done)),
    ]
    caption = f"{TITLES[metric]} of the abnormal samples of each stratum against all normal ones."
    return Table(caption, heads, lines, first="stratum")


def provenance(record: Record) -> list[tuple[str, str]]:
    """What a record says of how it came about, word by word."""
    method, data = record["method"], record["dataset"]
    facts = {
        "record": _record_link(record),
        "seal": record.get("seal") or "none: damage to this record and its files is not noticed",
        "method": method["name"],
        "supervision": method.get("supervision"),
        "paper": method.get("paper"),
        "data": data["name"],
        "data fingerprint": data["fingerprint"],
        "partial": record["partial"],
        "profile": record["profile"],
        "seed": record["seed"],
        "protocol": f"{record['protocol']['id']}: {record['protocol']['text']}",
        "threshold": (record.get("threshold") or {}).get("value"),
        "device": record.get("device"),
        "threads": record.get("threads"),
    }
    nested = {
        "argument": method["args"],
        "data argument": data["args"],
        "key": record.get("keys") or {},
        "version": record.get("versions") or {},
    }
    for word, inner in nested.items():
        facts |= {f"{word} {key}": value for key, value in sorted(inner.items())}
    return [(key, _value_text(value)) for key, value in facts.items() if value not in (None, "")]


def differing(board: Leaderboard) -> list[str]:
    """Sentences on what else differs between the records of a board, for times to be compared."""
    sentences = []
    for what in ("device", "threads"):
        values = {str(row.record.get(what) or "unknown") for row in board.done}
        if len(values) > 1:
            sentences.append(f"Not all of one {what}: {', '.join(sorted(values))}.")
    versions: dict[str, set[str]] = {}
    for row in board.done:
        for name, version in (row.record.get("versions") or {}).items():
            versions.setdefault(name, set()).add(str(version))
    sentences += [
        f"Not all made with one version of {name}: {', '.join(sorted(numbers))}."
        for name, numbers in sorted(versions.items())
        if len(numbers) > 1
    ]
    return sentences


def seeds_table(
    board: Leaderboard, anchors: Mapping[int, str], verdicts: Mapping[int, str], by: str
) -> Table | None:
    """Of methods with several seeds. verdicts: of their means in `by`, by their place."""
    heads = [
        *(ColumnHead(word) for word in COLUMN_TITLES[1:4]),
        ColumnHead(COLUMN_TITLES[4], "text"),
    ]
    heads += [ColumnHead(f"against the best mean in {by}", "text")] if verdicts else []
    lines = []
    for k, repeat in enumerate(board.seed_summaries):
        files = ", ".join(str(row.record.get("file", "?")) for row in repeat.entries)
        cells = [TableCell(text, files, sort=text) for text in repeat.table_cells()[1:4]]
        cells.append(TableCell(repeat.table_cells()[4], files, kind="text"))
        cells += [TableCell(verdicts.get(k, "-"), kind="text")] if verdicts else []
        row = repeat.entries[0]
        lines.append(
            _table_line(row, board.done.index(row), anchors, cells)._replace(name=repeat.name)
        )
    caption = f"Over seeds: {TITLES[board.metric]} of methods that were trained more than once."
    if verdicts:
        caption += " Differences between their means hold groups and seeds, corrected by Holm."
    return Table(caption, heads, lines) if lines else None


def _table_line(
    row: Entry, k: int, anchors: Mapping[int, str], cells: Sequence[TableCell]
) -> TableLine:
    baseline = bool(row.record["method"]["baseline"])
    where = anchors.get(id(row.record), "")
    return TableLine(
        row.name, letter(k), k % STYLES, where, baseline, row.worse_than_baseline or "", list(cells)
    )


def _interval_cell(board: Leaderboard, record: Record, metric: str) -> TableCell:
    value = metric_value(record, metric)
    low, high = (metric_value(record, metric, part) for part in ("low", "high"))
    values = [v for row in board.done if (v := row.value(metric)) is not None]
    top = (min if metric in LOWER_IS_BETTER else max)(values) if values else None
    oracle = metric == "pixel_dice_oracle"
    error = binning_error_text(record, metric).strip()
    beneath = [f"{error} binned"] if error else []
    beneath += [] if low is None or high is None else [f"[{number_text(low)}, {number_text(high)}]"]
    return metric_cell(record, f"metrics.{metric}.value", value)._replace(
        bounds=" ".join(beneath),
        kind="oracle" if oracle else "",
        best=value is not None and value == top and not oracle and len(values) > 1,
    )


def metric_cell(record: Record, place: str, value: Any) -> TableCell:
    """A number, with the record and the place in it that it is read from, to its last digit."""
    source = f"{_record_link(record)}: {place} = {value!r}"
    if not isinstance(value, int | float):
        return TableCell("-", source)
    whole = isinstance(value, int)
    return TableCell(str(value) if whole else number_text(value), source, repr(value))


def _cost_cell(record: Record, name: str) -> TableCell:
    value = (record.get("cost") or {}).get(name)
    cell = metric_cell(record, f"cost.{name}", value)
    if value is None:
        return cell
    return cell._replace(text=f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}")


def _word_cell(record: Record, name: str) -> TableCell:
    return TableCell(
        _value_text(record.get(name, "-")), f"{_record_link(record)}: {name}", kind="text"
    )


def _level_cell(record: Record) -> TableCell:
    level = record["level"]
    rule = LEVEL_RULE_NAMES.get(level["rule"], level["rule"])
    text = f"{level['chosen']} {rule}" if level["chosen"] else "-"
    return TableCell(text, f"{_record_link(record)}: level {_value_text(level)}", kind="text")


def _record_link(record: Record) -> str:
    return f"records/{record.get('file', '?')}"


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
