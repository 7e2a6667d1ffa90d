"""The page without a browser: labels of all controls, and an answer that equals the table."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from adbench.benchmark.leaderboard.answer import p_text, paired_difference_of
from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.records import read_records
from adbench.benchmark.leaderboard.seed_groups import ranked_methods
from adbench.benchmark.report.html.page import FIRST_SAMPLES, build_page
from adbench.benchmark.report.html.pairwise import compare_board
from pages import METHODS, write_results
from records import record

CONTROLS = ("button", "input", "select", "output")


class Controls(HTMLParser):
    """Ids, references to ids, and controls with the words that name them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.named: list[tuple[str, str]] = []
        self.groups: list[str] = []
        self._labels: list[str] = []
        self._buttons: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = {name: value or "" for name, value in attrs}
        self.ids += [facts["id"]] if "id" in facts else []
        for name in ("aria-labelledby", "aria-describedby", "popovertarget", "data-table"):
            self.references += facts.get(name, "").split()
        self.references += [facts["href"][1:]] if facts.get("href", "").startswith("#") else []
        self.references += re.findall(r"^url\(#(.+)\)$", facts.get("filter", ""))
        self.references += [facts["data-common"]] if "data-common" in facts else []
        self.groups += [facts["aria-label"]] if facts.get("role") == "group" else []
        if tag == "label":
            self._labels.append("")
        if tag in CONTROLS:
            label = facts.get("aria-label", "") or (self._labels[-1] if self._labels else "")
            self.named.append((tag, label))
            self._buttons += [len(self.named) - 1] if tag == "button" else []

    def handle_data(self, data: str) -> None:
        if self._labels:
            self._labels[-1] += data
            tag, label = self.named[-1] if self.named else ("", "x")
            if tag == "input" and not label.strip():  # its words stand behind it
                self.named[-1] = tag, data
        if self._buttons:
            tag, label = self.named[self._buttons[-1]]
            self.named[self._buttons[-1]] = tag, label + data

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self._labels.pop()
        if tag == "button":
            self._buttons.pop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, ("synthbrain", "brats", "mvtec/hazelnut"))
    return folder


def test_ids_are_unique_and_every_reference_has_its_target(folder: Path) -> None:
    read = Controls(build_page(read_records(folder / "records"), folder).html)
    assert len(read.ids) == len({*read.ids})
    assert {*read.references} - {""} <= {*read.ids}
    assert len(read.groups) == len({*read.groups})


def test_every_control_has_a_name(folder: Path) -> None:
    read = Controls(build_page(read_records(folder / "records"), folder).html)
    assert {tag for tag, _ in read.named} == {*CONTROLS}
    assert [tag for tag, name in read.named if not name.strip()] == []


def test_the_answer_has_the_numbers_of_the_table(folder: Path) -> None:
    boards = build_leaderboards(read_records(folder / "records"), folder)
    for board in boards:
        row = board.rows()[0]
        best, baseline = ranked_methods(board.done, "pixel_ap")[0], board.done[1]
        difference = paired_difference_of(
            best, ranked_methods([baseline], "pixel_ap")[0], "pixel_ap", folder
        )
        assert not isinstance(difference, str) and difference.p is not None
        interval = f"{row['pixel_ap']:.3f} [{row['pixel_ap_low']:.3f}, {row['pixel_ap_high']:.3f}]"
        assert board.answer == (
            f"AnoDDPM has the highest pixel AP ({interval}); it is {difference.verdict} than the "
            f"baseline Template z ({p_text(difference.p)} of this pair alone); 250 network "
            f"calls an image; one seed. By image AUROC AnoDDPM is best too "
            f"({row['image_auroc']:.3f})."
        )
    html = build_page(read_records(folder / "records"), folder).html
    assert all(f'<p class="answer">{board.answer}</p>' in html for board in boards)


def test_without_a_difference_the_answer_says_so(tmp_path: Path) -> None:
    records = write_results(tmp_path, seeds=(0, 1))
    (board,) = build_leaderboards(records, tmp_path)
    assert "(mean 0.444 over 2 seeds, 0.432 to 0.455)" in board.answer
    assert board.answer.split(". By image")[0].endswith("2 seeds")
    (alike,) = build_leaderboards([*records[:1], records[4] | {"metrics": records[0]["metrics"]}])
    assert "is unknown: no resamples of pixel AP are stored" in alike.answer
    (poor,) = build_leaderboards([record("A", 0.2), record("Mean", 0.4, method__baseline=True)])
    assert poor.answer.startswith(
        "No method is above the baselines: Mean has the highest pixel AP (0.400 [0.350, 0.450]), "
        "the best method A (0.200 [0.150, 0.250]); whether it is better than the baseline Mean"
    )
    (only,) = build_leaderboards([record("Mean", method__baseline=True, seed=s) for s in (0, 1)])
    assert only.answer.startswith(
        "The baseline Mean has the highest pixel AP (0.500 [0.450, 0.550] in each of 2 seeds)"
    )
    (trial,) = build_leaderboards([record("A", partial=8)])
    assert trial.answer.startswith("Trial run on at most 8 samples of each split: do not quote.")
    assert build_leaderboards([record("A", status="failed", reason="x")])[0].answer == ""


def test_equal_values_share_a_rank_and_baselines_come_after() -> None:
    records = [record("A base", 0.5, method__baseline=True), record("B", 0.5), record("C", 0.4)]
    (board,) = build_leaderboards(records)
    assert [(entry.rank, entry.record["method"]["label"]) for entry in board.entries] == [
        *((1, "B"), (1, "A base"), (3, "C"))
    ]


def test_seeds_are_rows_of_the_board_and_one_entry_of_every_figure(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1, 2))
    page = build_page(read_records(tmp_path / "records"), tmp_path)
    for seed in (0, 1, 2):
        assert f">AnoDDPM, seed {seed}</a>" in page.html
    assert page.html.count("<figcaption>A AnoDDPM, seed 0<small>") == 9 + 2  # and reconstructions
    assert "<figcaption>A AnoDDPM, seed 1" not in page.html
    assert "AnoDDPM</text>" in page.html and ", seed 1</text>" not in page.html
    for name, chart in page.charts.items():
        letters = {gid[0] for gid in chart.tooltips if gid.endswith(("-point", "-value"))}
        assert letters <= {*"ABC"[: len(METHODS)]}, name
    (board,) = build_leaderboards(read_records(tmp_path / "records"), tmp_path)
    (pictures,) = page.pictures.values()
    assert [*pictures.scales] == [0, 1, 2] and len(board.methods) == len(METHODS)
    assert [name.split(" (")[0].split(",")[0] for name in pictures.names] == [
        group.name.split(" (")[0] for group in board.methods
    ]


def test_a_method_is_drawn_at_the_mean_of_its_seeds_with_these_as_points(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1, 2))
    (board,) = build_leaderboards(read_records(tmp_path / "records"), tmp_path)
    group = board.methods[0]
    values = group.values("pixel_ap")
    charts = build_page(read_records(tmp_path / "records"), tmp_path).charts
    answer = charts["leaderboard-0-answer"]
    assert answer.artist("A-value").get_xdata().tolist() == [group.value("pixel_ap")]
    assert sorted(answer.artist("A-seeds").get_xdata().tolist()) == sorted(values)
    assert answer.artist("A-interval").get_xdata().tolist() == [*(group.interval("pixel_ap") or ())]
    assert "mean of 3 seeds" in answer.tooltips["A-value"]
    cost = charts["leaderboard-0-cost-evaluations_per_image"]
    assert cost.artist("A-point").get_ydata().tolist() == [group.value("pixel_ap")]
    assert sorted(cost.artist("A-seeds").get_ydata().tolist()) == sorted(values)
    sweep = charts["leaderboard-0-pixel_ap-test"]
    levels = sweep.artist("A-line").get_xdata().tolist()
    means = [
        sum(e.record["sweep"][str(level)]["test"]["pixel_ap"] for e in group.entries) / 3
        for level in levels
    ]
    assert sweep.artist("A-line").get_ydata().tolist() == pytest.approx(means)
    assert len(sweep.artist("A-seeds").get_xdata()) == 3 * len(levels)
    froc = charts["leaderboard-0-froc"]
    sensitivities = [
        sum(e.record["lesions"]["froc"][i]["sensitivity"] for e in group.entries) / 3
        for i in range(2)
    ]
    assert froc.artist("A-line").get_ydata().tolist() == pytest.approx(sensitivities)


def test_differences_are_between_methods_over_their_seeds(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1))
    records = read_records(tmp_path / "records")
    (board,) = build_leaderboards(records, tmp_path)
    matrix = compare_board(board, tmp_path).matrix
    assert matrix is not None and [line.name for line in matrix.lines] == [
        group.name for group in board.methods
    ]
    a, b = ranked_methods(board.done, "pixel_ap")[:2]
    difference = paired_difference_of(a, b, "pixel_ap", tmp_path)
    assert not isinstance(difference, str)
    assert matrix.lines[0].cells[1].text.endswith(f"{difference.value:+.3f}")
    assert f"[{difference.low:+.3f}, {difference.high:+.3f}]" == matrix.lines[0].cells[1].bounds


def test_all_kept_samples_are_on_the_page_with_all_levels_and_outlines(folder: Path) -> None:
    html = build_page(read_records(folder / "records"), folder).html
    cards = html.count('<article class="card"')
    assert cards == 3 * 9
    assert html.count('<article class="card"') - html.count(" hidden aria-label=") == (
        3 * FIRST_SAMPLES
    )
    assert html.count(" data-map=") == cards * len(METHODS) * 3
    assert html.count('class="outline"') == 3 * 6 * (1 + len(METHODS))  # truth, and each map
    assert html.count('<span class="sides"><span>R</span><span>L</span>') == 9 * (
        1 + len(METHODS)
    ) + 6 + 2 * len(METHODS)  # of brats alone: input, maps, truth, reconstructions
