"""Titles of leaderboards: short, and never two alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
from adbench.benchmark.leaderboard.titles import DATASET_LABELS, dataset_title, unique_titles
from adbench.benchmark.registry.registry import Registry
from records import record


@pytest.mark.parametrize(
    ("name", "args", "synthetic", "title"),
    [
        ("synthbrain", {"preset": "demo"}, True, "SynthBrain (demo), synthetic"),
        ("synthbrain", {"modalities": "flair"}, True, "SynthBrain, synthetic, FLAIR"),
        ("brats", {"modalities": ["t1", "t2"], "size": 32}, False, "BraTS, T1 T2"),
        ("mvtec/hazelnut", {"category": "hazelnut"}, False, "MVTec AD: hazelnut"),
        ("mine", {"seed": 3, "subjects": {"val": 4}}, False, "mine"),
        ("mine", {"task": "a" * 99, "preset": 7}, False, "mine"),
    ],
)
def test_a_title_says_what_a_reader_must_know(
    name: str, args: dict, synthetic: bool, title: str
) -> None:
    assert dataset_title({"name": name, "args": args, "synthetic": synthetic}) == title


def test_every_dataset_that_comes_with_adbench_has_a_label() -> None:
    assert {*Registry.read().datasets} == {*DATASET_LABELS}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["brats", "BraTS", "mine"]),
            st.dictionaries(st.sampled_from(["size", "preset"]), st.integers(0, 2)),
            st.sampled_from(["aa", "bb"]),
            st.sampled_from(["", "f0", "f1"]),
            st.booleans(),
        ),
        unique_by=lambda facts: repr([*facts[:1], sorted(facts[1].items()), *facts[2:]]),
        max_size=6,
    )
)
def test_no_two_titles_are_alike(facts: list) -> None:
    records = [
        record(
            "A",
            dataset__name=name,
            dataset__args=args,
            dataset__fingerprint=fingerprint,
            dataset__synthetic=synthetic,
            protocol__id=protocol,
        )
        for name, args, protocol, fingerprint, synthetic in facts
    ]
    titles = unique_titles(records)
    assert len({*titles}) == len(titles)


def test_what_differs_is_appended_where_titles_would_be_equal() -> None:
    boards = build_leaderboards(
        [
            record("A", dataset__args={"size": 32, "seed": 0}, dataset__fingerprint="f0"),
            record("A", dataset__args={"size": 64, "seed": 0}, dataset__fingerprint="f1"),
        ]
    )
    assert [board.title for board in boards] == ["BraTS, size=32", "BraTS, size=64"]
    one, two = build_leaderboards([record("A"), record("A", protocol__id="ffff0000")])
    assert [one.title, two.title] == ["BraTS, protocol abcd1234", "BraTS, protocol ffff0000"]
