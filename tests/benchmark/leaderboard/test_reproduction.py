"""Published numbers: the file itself, and verdicts on records that agree, differ or do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from adbench.benchmark.leaderboard.columns import METRICS
from adbench.benchmark.leaderboard.reproduction import (
    CANNOT,
    NOT,
    OWN_CLAIM,
    REPRODUCED,
    RERUN,
    WITHIN,
    ReproduceError,
    figures_side_by_side,
    published_values,
    read_published,
    reproduce,
)
from records import missing, record

PAPERS: dict[str, Any] = {
    "known": {
        "label": "Known",
        "link": "https://example.org",
        "tables": {
            "one": {
                "source": "a file",
                "protocol": "as it is",
                "unit": 100,
                "rounding": 0.1,
                "metrics": {"I": "image_auroc", "PRO": {"why": "another integral"}},
                "needs": {"level.rule": "val", "profile": "tiny"},
                "mean": [43.2, 10.0],
                "rows": [
                    {"method": "a", "dataset": "brats", "values": [43.2, 10.0]},
                    {"method": "a", "dataset": "mvtec/tile", "values": [43.2, None]},
                ],
            },
            "none": {"source": "unread", "protocol": "?", "cannot": "nobody has read it"},
        },
    }
}


def on(value: float | None = 0.4321, low=None, high=None, **changes: Any) -> dict[str, Any]:
    changed: dict[str, Any] = record("A", **changes) | {"file": "a.json"}
    changed["metrics"]["image_auroc"] = {"value": value, "low": low, "high": high}
    return changed


def first(*records, papers=PAPERS, **options):
    return reproduce("known:one", records, papers, **options)[1][0]


@pytest.mark.parametrize(
    ("compared", "verdict", "reason"),
    [
        (on(0.4324), REPRODUCED, "0.0005 allowed"),
        (on(0.4326), NOT, "no interval"),
        (on(0.40, 0.38, 0.44), WITHIN, "95 %"),
        (on(0.40, 0.38, 0.42), NOT, "outside the 95 % interval"),
        (on(partial=8), CANNOT, "a partial run, of 8 samples"),
        (on(dataset__synthetic=True), CANNOT, "made-up data"),
        (on(profile="paper"), CANNOT, "profile is 'paper', and the published number's 'tiny'"),
        (on(level__rule="oracle"), CANNOT, "level.rule is 'oracle'"),
        (on(None), CANNOT, "no image_auroc"),
        (missing("A", reason="no memory"), CANNOT, "failed: no memory"),
        (on(dataset__name="ixi"), CANNOT, "a was not run on brats: adbench run -m a -d brats"),
        (on(method__name="b"), CANNOT, "a was not run on brats"),
    ],
)
def test_a_record_is_compared_only_if_it_fits(compared, verdict, reason):
    results = first(compared)
    assert results.verdict == verdict and reason in results.reason
    assert (results.value is not None) == (verdict != CANNOT)
    assert results.published == pytest.approx(0.432)
    assert "\n" not in results.sentence() and results.sentence().startswith(verdict)


def test_other_arguments_are_another_experiment():
    rows = [{"method": "a", "args": {"noise": "simplex"}, "dataset": "brats", "values": [43.2, 1]}]
    table = PAPERS["known"]["tables"]["one"] | {"rows": rows, "mean": []}
    papers = {"known": PAPERS["known"] | {"tables": {"one": table}}}
    assert "argument noise is None" in first(on(), papers=papers).reason
    assert first(on(method__args={"noise": "simplex", "T": 9}), papers=papers).verdict == REPRODUCED


def test_another_metric_cannot_be_tested_whatever_is_there():
    findings = reproduce("known:one", [on()], PAPERS)[1]
    assert [f.verdict for f in findings if f.metric == "PRO"] == [CANNOT] * 2
    assert "another protocol: another integral" in findings[1].reason


def test_seeds_are_averaged_and_their_spread_is_allowed():
    results = first(on(0.43), on(0.44, seed=1))
    assert results.value == pytest.approx(0.435) and results.tolerance == pytest.approx(
        0.005 * 2**0.5
    )
    assert results.verdict == REPRODUCED and len(results.records) == 2
    apart = first(on(0.43), on(0.44, seed=1, dataset__fingerprint="beef"))
    assert apart.verdict == CANNOT and "different data" in apart.reason


def test_a_mean_wants_every_row():
    tile = on(0.4323, dataset__name="mvtec", dataset__args={"category": "tile"})
    all_of = [f for f in reproduce("known:one", [on(), tile], PAPERS)[1] if f.dataset == "mean"]
    assert all_of[0].verdict == REPRODUCED and all_of[0].value == pytest.approx(0.4322)
    one_of = [f for f in reproduce("known:one", [on()], PAPERS)[1] if f.dataset == "mean"]
    assert one_of[0].verdict == CANNOT and "1 of 2 cannot be tested" in one_of[0].reason


def test_without_the_method_there_is_nothing_to_run():
    assert "no method a yet" in first(on(), methods=["b"]).reason
    assert first(on(), methods=["a"]).verdict == REPRODUCED


def test_a_table_without_numbers_says_why():
    (results,) = reproduce("known:none", [on()], PAPERS)[1]
    assert results.verdict == CANNOT and results.published is None
    assert results.sentence() == "cannot test: nobody has read it"


def test_a_wrong_name_is_one_line_with_what_there_is():
    with pytest.raises(ReproduceError, match="Did you mean 'known'") as caught:
        reproduce("knwon", [], PAPERS)
    assert "\n" not in str(caught.value)
    with pytest.raises(ReproduceError, match=r"unknown table 'two'\. There are one, none"):
        reproduce("known:two", [], PAPERS)


@pytest.mark.parametrize("name", list(read_published()))
def test_the_file_says_of_every_number_where_it_is_from(name):
    paper = read_published()[name]
    assert paper["link"].startswith("https://") and paper["label"]
    for table in paper["tables"].values():
        assert len(table["source"]) > 10 and table["protocol"]
        if "cannot" in table:
            assert not table.get("rows")
            continue
        assert table["kind"] in (OWN_CLAIM, RERUN) and len(table["bring"]) > 20
        for metric in table["metrics"].values():
            assert set(metric) == {"why"} if isinstance(metric, dict) else metric in METRICS
        for row in table["rows"]:
            assert len(row["values"]) == len(table["metrics"])
            shares = [value / table["unit"] for value in row["values"] if value is not None]
            assert all(0 <= share <= 1 for share in shares)


@pytest.mark.parametrize("table", ["mvtec", "visa"])
def test_printed_means_are_the_means_of_their_rows(table):
    """A slip in copying a row would show."""
    facts = read_published()["ddad"]["tables"][table]
    for k, mean in enumerate(facts["mean"]):
        values = [row["values"][k] for row in facts["rows"]]
        assert sum(values) / len(values) == pytest.approx(mean, abs=0.1)


def test_nothing_here_reproduces_anything_without_records():
    for name in read_published():
        assert {finding.verdict for finding in reproduce(name, [])[1]} == {CANNOT}


def test_a_methods_figures_are_told_with_their_source_and_nothing_else() -> None:
    papers = {
        "p": {
            "tables": {
                "one": {
                    "source": "a file",
                    "metrics": {"Dice": {}, "AUC": {}},
                    "rows": [
                        {"method": "m", "dataset": "d", "values": [0.5, None]},
                        {"method": "m", "dataset": "d", "values": [0.25, 0.75]},
                        {"method": "n", "dataset": "d", "values": [0.1, 0.2]},
                    ],
                }
            }
        },
        "m": {"tables": {"two": {"cannot": "nobody could read it"}}},
    }
    assert published_values("m", papers) == {
        "p:one d": "Dice 0.5 (a file); Dice 0.25, AUC 0.75 (a file)",
        "m:two": "nobody could read it",
    }
    assert published_values("o", papers) == {}


def test_a_claim_stands_beside_what_others_and_we_measured():
    table = {**PAPERS["known"]["tables"]["one"], "kind": OWN_CLAIM}
    rows = [{"method": "a", "dataset": "brats", "values": [40.0, None]}]
    other = {**table, "kind": RERUN, "rows": rows}
    papers = {"known": {"tables": {"one": table}}, "other": {"tables": {"b": other}}}
    first_figure, *_ = figures_side_by_side("known", [on(0.43)], papers)
    assert first_figure.own == pytest.approx((0.432,)) and first_figure.rerun == (0.4,)
    assert first_figure.ours == pytest.approx(0.43)
    assert "own claim 0.432, third-party re-run 0.4, here 0.4300" in first_figure.sentence()
    (rerun,) = figures_side_by_side("other", [], papers)
    assert rerun.own == pytest.approx((0.432,)) and rerun.ours is None


def test_the_tables_of_the_benchmarks_are_whole():
    papers = read_published()
    dice = papers["uad-imag"]["tables"]["dice"]["rows"]
    assert len(dice) == len({(row["method"], row["dataset"]) for row in dice}) == 64
    assert all(best >= estimated for best, estimated in (row["values"] for row in dice))
    board = papers["bmad"]["tables"]["board"]["rows"]
    assert len({row["dataset"] for row in board}) == 6 and len(board) == 61


@pytest.mark.parametrize(
    ("paper", "dataset", "protocol"),
    [("uad-imag", "uad-imag-brats-t2", "uad-imag"), ("bmad", "bmad/resc", "bmad")],
)
def test_a_benchmark_says_what_it_needs_and_is_compared_when_it_is_there(paper, dataset, protocol):
    from adbench.benchmark.evaluation.named_protocols import NAMED_PROTOCOLS, parse_protocol

    facts, findings = reproduce(paper, [])
    (table,) = facts["tables"].values()
    assert f"-d {dataset}" in table["bring"] and f"--protocol {protocol}" in table["bring"]
    assert all(dataset in finding.reason for finding in findings if finding.dataset == dataset)
    ours: dict[str, Any] = record(
        "PatchCore", dataset__name=dataset, profile="paper", method__name="patchcore",
        protocol__name=protocol, protocol__id=parse_protocol(protocol).id,
    ) | {"file": "a.json"}  # fmt: skip
    for metric in {*table["metrics"].values()}:
        assert metric in NAMED_PROTOCOLS[protocol].metrics
        ours["metrics"][metric] = {"value": 0.372, "low": 0.3, "high": 0.98}
    compared = [f for f in reproduce(paper, [ours])[1] if f.value is not None]
    assert len(compared) == len(table["metrics"])
    assert {f.dataset for f in compared} == {dataset}
    assert all(f.verdict in (REPRODUCED, WITHIN) for f in compared)
