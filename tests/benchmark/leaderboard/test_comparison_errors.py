"""What cannot be compared: one line that names the cause and what would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adbench.benchmark.leaderboard.comparison import compare
from adbench.benchmark.leaderboard.pairwise import PairError
from records import missing, record
from reports import with_samples


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (("a", "b"), {"metric": "dice"}, "unknown metric 'dice'. Did you mean 'pixel_dice'? There"),
        (("a", "b"), {"metric": "pixel_app"}, "'pixel_app'. Did you mean 'pixel_ap'? There are"),
        (("a", "b"), {"metric": "healthy_psnr"}, "no healthy_psnr of single samples is stored"),
        (("a", "b"), {"margin": -0.1}, "--margin is a number and at least 0, not -0.1"),
        (("a", "b"), {"margin": float("nan")}, "--margin is a number and at least 0, not nan"),
        (("a", "b"), {"margin": float("inf")}, "--margin is a number and at least 0, not inf"),
        (("aa", "b"), {}, "no result of 'aa' in"),
        (("failing", "b"), {}, "no result of 'failing' in"),
        (("a", "b"), {"dataset": "ixi"}, "have no leaderboard in common on ixi"),
    ],
)
def test_an_error_is_one_line_with_its_cause(
    tmp_path: Path, methods: tuple[str, str], options: dict[str, Any], message: str
) -> None:
    records = with_samples(tmp_path, [record("A"), record("B", 0.4), missing("failing")])
    with pytest.raises(PairError) as error:
        compare(*methods, tmp_path, records, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
