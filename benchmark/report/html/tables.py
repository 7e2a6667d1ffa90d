"""Tables of the page with a row for each record, or a column for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...leaderboard.binning import binning_error_text
from ...leaderboard.columns import (
    LEVEL_RULE_NAMES,
    LOWER_IS_BETTER,
    METRICS,
    TITLES,
)
from ...leaderboard.entry import Entry
from ...leaderboard.leaderboard import Leaderboard
from ...leaderboard.records import Record, metric_value
from ...leaderboard.seed_variation import COLUMN_TITLES
from ...leaderboard.text import interval_text, number_text
from .chart import STYLES, letter
from .provenance import value_text
from .table_types import ColumnHead, Table, TableCell, TableLine

COST_TITLES = {
    "evaluations_per_image": "evals / image",
    "gflops_per_image": "GFLOP / image",
    "seconds_per_image": "s / image",
    "train_steps": "train steps",
    "train_seconds": "train s",
    "parameters": "parameters",
    "peak_memory_mb": "peak MB",
}
BAR = 88
"""Points across the drawing of an interval."""

LEVEL_SETTINGS = {"at_published": "published", "at_oracle": "oracle"}


def all_metrics_table(board: Leaderboard, numbers: Mapping[int, int]) -> Table:
    """Return every metric of every entry, at the chosen level, the published one and the oracle's.

    numbers: indices of records, by their id

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import all_metrics_table
    >>> table = all_metrics_table(example_leaderboard(), {})
    >>> [(head.text, cell.text) for head, cell in zip(table.heads, table.lines[0].cells)][:3]
    [('at', 'chosen level'), ('image AUROC', '0.900'), ('pixel AP', '0.455')]
    """
    candidates = [
        *METRICS,
        *sorted({n for row in board.done for n in row.record["metrics"]} - {*METRICS}),
    ]
    shown = [name for name in candidates if any(row.value(name) is not None for row in board.done)]
    heads = [ColumnHead("at", "text")]
    heads += [
        ColumnHead(str(TITLES.get(name, name)), lower=name in LOWER_IS_BETTER, field=(name,))
        for name in shown
    ]
    best = {name: best_value(board, name) for name in shown}
    lines = []
    for row in board.done:
        record = row.record
        cells = [
            TableCell("chosen level", kind="text"),
            *(interval_cell(record, n, best[n]) for n in shown),
        ]
        lines.append(table_line(board, row, numbers, cells, ("metrics",)))
        for part, word in LEVEL_SETTINGS.items():
            values = record.get(part) or {}
            if values:
                cells = [TableCell(f"{word} level {record['level'].get(word)}", kind="text")]
                cells += [number_cell(values.get(name)) for name in shown]
                lines.append(table_line(board, row, numbers, cells, (part,)))
    return Table(
        "The oracle level is chosen on the test set: an upper bound, not a fair score.",
        heads,
        lines,
    )


def cost_table(board: Leaderboard, numbers: Mapping[int, int]) -> Table:
    """Return what each method cost: network calls, operations, seconds and memory.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import cost_table
    >>> table = cost_table(example_leaderboard(), {})
    >>> [(line.name, line.cells[0].text) for line in table.lines]
    [('AnoDDPM', '250'), ('pDDPM', '4')]
    """
    heads = [
        ColumnHead(title, lower=True, field=("cost", name)) for name, title in COST_TITLES.items()
    ]
    heads.append(ColumnHead("device", "text", field=("device",)))
    lines = [
        table_line(
            board,
            row,
            numbers,
            [
                *(cost_cell(row.record, name) for name in COST_TITLES),
                word_cell(row.record, "device"),
            ],
        )
        for row in board.done
    ]
    return Table(
        "Seconds and memory are of the devices named, and differ from run to run.", heads, lines
    )


def method_heads(board: Leaderboard, numbers: Mapping[int, int]) -> list[ColumnHead]:
    """A column for each method, of the mean of its seeds.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import method_heads
    >>> [head.text for head in method_heads(example_leaderboard(), {})]
    ['A AnoDDPM', 'B pDDPM']
    """
    return [
        ColumnHead(f"{letter(k)} {group.name}", records=record_numbers(group.entries, numbers))
        for k, group in enumerate(board.methods)
    ]


def record_numbers(entries: Sequence[Entry], numbers: Mapping[int, int]) -> tuple[int, ...]:
    """The indices of the records of entries; those without one are left out.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import record_numbers
    >>> entries = example_leaderboard().done
    >>> record_numbers(entries, {id(entries[1].record): 7})
    (7,)
    """
    return tuple(numbers[id(e.record)] for e in entries if id(e.record) in numbers)


MEANS_NOTE = " Of several seeds, the mean."


def means_note(board: Leaderboard) -> str:
    """What a caption adds where columns are means over seeds.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import means_note
    >>> means_note(example_leaderboard())
    ''
    """
    return MEANS_NOTE if any(len(group.entries) > 1 for group in board.methods) else ""


def strata_table(board: Leaderboard, metric: str, numbers: Mapping[int, int]) -> Table | None:
    """Return a metric of each stratum of abnormal samples, a column per method.

    None where no record has strata.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import strata_table
    >>> table = strata_table(example_leaderboard(), "image_auroc", {})
    >>> [(line.name, [cell.text for cell in line.cells]) for line in table.lines]
    [('size=large', ['10', '1.000', '1.000']), ('size=small', ['10', '0.800', '0.200'])]
    """
    counts: dict[str, Any] = {}
    for row in board.done:
        for name, facts in (row.record.get("strata") or {}).items():
            if facts.get(metric) is not None:
                counts.setdefault(name, facts.get("n"))
    if not counts:
        return None

    def value(record: Record, name: str) -> float | None:
        return ((record.get("strata") or {}).get(name) or {}).get(metric)

    lines = []
    for name, count in sorted(counts.items()):
        means = (group.mean(lambda r, name=name: value(r, name)) for group in board.methods)
        cells = [TableCell(str(count)), *map(number_cell, means)]
        lines.append(TableLine(name, cells, field=("strata", name, metric)))
    heads = [ColumnHead("samples"), *method_heads(board, numbers)]
    caption = f"{TITLES[metric]} of the abnormal samples of each stratum against all normal ones."
    return Table(caption + means_note(board), heads, lines, first="stratum")


def seeds_table(
    board: Leaderboard, numbers: Mapping[int, int], verdicts: Mapping[int, str], by: str
) -> Table | None:
    """Return mean, lowest and highest value of methods with several seeds.

    None where there is none.

    numbers: indices of records, by their id
    verdicts: of the means against the best in `by`, by index

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.report.html.tables import seeds_table
    >>> (board,) = build_leaderboards([example_record(detected=n, seed=n) for n in (10, 20)])
    >>> [cell.text for cell in seeds_table(board, {}, {}, "").lines[0].cells]
    ['0.388', '0.275', '0.500', '10: 1, 20: 1']
    """
    field = ("metrics", board.metric)
    heads = [ColumnHead(word, field=field) for word in COLUMN_TITLES[1:4]]
    heads.append(ColumnHead(COLUMN_TITLES[4], "text"))
    heads += [ColumnHead(f"against the best mean in {by}", "text")] if verdicts else []
    lines = []
    for k, repeat in enumerate(board.seed_summaries):
        cells = [TableCell(text, sort=text) for text in repeat.table_cells()[1:4]]
        cells.append(TableCell(repeat.table_cells()[4], kind="text"))
        cells += [TableCell(verdicts.get(k, "-"), kind="text")] if verdicts else []
        line = table_line(board, repeat.entries[0], numbers, cells)
        records = record_numbers(repeat.entries, numbers)
        lines.append(line._replace(name=repeat.name, records=records))
    caption = f"{TITLES[board.metric]} over seeds, of methods that were trained more than once."
    if verdicts:
        caption += (
            " Differences between means cover the choice of groups and of seeds, corrected by Holm."
        )
    return Table(caption, heads, lines) if lines else None


def table_line(
    board: Leaderboard,
    row: Entry,
    numbers: Mapping[int, int],
    cells: Sequence[TableCell],
    field: tuple[str | int, ...] = (),
) -> TableLine:
    """The line of an entry of a leaderboard, with the letter of its method in charts.

    numbers: indices of records, by their id      field: as of the line

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import table_line
    >>> board = example_leaderboard()
    >>> table_line(board, board.done[1], {}, []).letter
    'B'
    """
    k = board.method_numbers[id(row.record)]
    return TableLine(
        row.name,
        list(cells),
        letter(k),
        k % STYLES,
        bool(row.record["method"]["baseline"]),
        row.worse_than_baseline or "",
        str(row.record["profile"]),
        record_numbers([row], numbers),
        field,
    )


def best_value(board: Leaderboard, metric: str) -> float | None:
    """The best of a column, once for all of its cells; None where nothing is compared.

    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.tables import best_value
    >>> best_value(example_leaderboard(), "pixel_ap")
    0.455
    """
    values = [v for row in board.done if (v := row.value(metric)) is not None]
    if len(values) < 2:
        return None
    return (min if metric in LOWER_IS_BETTER else max)(values)


def interval_cell(
    record: Record, metric: str, best: float | None, limits: tuple[float, float] | None = None
) -> TableCell:
    """The cell of a metric with its interval below it.

    best: of the column, None where nothing is compared
    limits: of the column's axis, on which the interval is drawn; None for no drawing

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.report.html.tables import interval_cell
    >>> cell = interval_cell(example_record(), "pixel_ap", None, (0.405, 0.505))
    >>> cell.text, cell.bounds, cell.bar
    ('0.455', '[0.405, 0.505]', (0, 44, 88))
    """
    value = metric_value(record, metric)
    low, high = (metric_value(record, metric, part) for part in ("low", "high"))
    oracle = metric == "pixel_dice_oracle"
    error = binning_error_text(record, metric).strip()
    beneath = [f"{error} binned"] if error else []
    bar = None
    if limits and limits[1] > limits[0] and None not in (low, value, high):
        low_, value_, high_ = (
            round(BAR * (float(each or 0) - limits[0]) / (limits[1] - limits[0]))
            for each in (low, value, high)
        )
        bar = low_, value_, high_
    return number_cell(value)._replace(
        bar=bar,
        bounds=" ".join(filter(None, [*beneath, interval_text(low, high)])),
        kind="oracle" if oracle else "",
        best=value is not None and value == best and not oracle,
    )


def number_cell(value: Any) -> TableCell:
    """Return the cell of a number: integers whole, others with three digits, `-` for none.

    >>> from adbench.benchmark.report.html.tables import number_cell
    >>> number_cell(0.123456).text, number_cell(12).text, number_cell(None).text
    ('0.123', '12', '-')
    """
    if not isinstance(value, int | float):
        return TableCell("-")
    return TableCell(str(value) if isinstance(value, int) else number_text(value))


def rate(record: Record, name: str) -> float | None:
    """A rate of false alarms of a record; None where it was not measured.

    >>> from adbench.benchmark.report.html.tables import rate
    >>> rate({"calibration": {"image_fpr": 0.05}}, "image_fpr")
    0.05
    """
    return (record.get("calibration") or {}).get(name)


def cost_cell(record: Record, name: str) -> TableCell:
    """The cell of a cost of a record.

    >>> from adbench.benchmark.report.html.tables import cost_cell
    >>> cost_cell({"cost": {"train_steps": 12000}}, "train_steps").text
    '12,000'
    """
    value = (record.get("cost") or {}).get(name)
    if value is None:
        return number_cell(value)
    return TableCell(f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}")


def word_cell(record: Record, name: str) -> TableCell:
    """The cell of a field of a record that is a word, or is shown as one.

    >>> from adbench.benchmark.report.html.tables import word_cell
    >>> word_cell({"profile": "tiny"}, "profile").text
    'tiny'
    """
    return TableCell(value_text(record.get(name, "-")), kind="text")


def level_cell(record: Record) -> TableCell:
    """The cell of the chosen noise level and of how it was chosen.

    >>> from adbench.benchmark.report.html.tables import level_cell
    >>> level_cell({"level": {"chosen": 250, "rule": "published"}}).text
    '250 paper'
    """
    level = record["level"]
    rule = LEVEL_RULE_NAMES.get(level["rule"], level["rule"])
    text = f"{level['chosen']} {rule}" if level["chosen"] else "-"
    return TableCell(text, kind="text")
