"""Time series of the UCR archive and TSB-AD: prefixes, windows, and what counts once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trees_benchmarks as trees
from adbench.datasets.tsb_ad import TSBAD
from adbench.datasets.ucr_anomaly import UCRAnomaly
from trees_images import counts, samples, shared

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.filterwarnings("ignore")]


def test_every_abnormal_step_counts_once(tmp_path) -> None:
    trees.ucr(tmp_path)
    data = UCRAnomaly(root=str(tmp_path), category="001", window=48, stride=16)
    data.prepare()
    assert counts(data) == {"train": 14, "held_out": 2, "val": 0, "test": 6}
    evaluated = np.zeros(280, int)
    abnormal = np.zeros(280, bool)
    for sample in samples(data, "test"):
        start = int(sample.key.rpartition("/")[2])
        roi = np.ones(48, bool) if sample.roi is None else sample.roi.numpy()
        assert sample.mask is not None
        evaluated[start : start + 48] += roi
        abnormal[start : start + 48] |= sample.mask.numpy()
    assert (evaluated == 1).all()
    assert np.flatnonzero(abnormal).tolist() == list(range(450 - 320, 470 - 320))
    assert shared(data) == set() and not any(s.label for s in samples(data, "train"))


def test_values_are_scaled_by_the_training_prefix(tmp_path) -> None:
    folder = trees.ucr(tmp_path) / "UCR_Anomaly_FullData"
    path = folder / "001_UCR_Anomaly_tide1_320_451_470.txt"
    values = np.array(path.read_text().split(), float)
    data = UCRAnomaly(root=str(tmp_path), category="tide1", window=40, margin=0.5)
    data.prepare()
    low, high = values[:320].min(), values[:320].max()
    expected = np.clip(((values[320:360] - low) / (high - low) + 0.5) / 2, 0, 1)
    assert np.allclose(samples(data, "test")[0].x[0].numpy(), expected, atol=1e-6)
    separated = UCRAnomaly(root=str(tmp_path), category="002", window=40)
    separated.prepare()
    assert counts(separated)["test"] == 7


def test_tsb_ad_takes_a_source_and_several_channels(tmp_path) -> None:
    trees.tsb_ad(tmp_path / "u")
    data = TSBAD(root=str(tmp_path / "u"), category="NAB", window=32)
    data.prepare()
    assert {s.tags["source"] for s in samples(data, "test")} == {"NAB"}
    assert len({s.group for s in samples(data, "test")}) == 2
    trees.tsb_ad(tmp_path / "m", channels=3)
    several = TSBAD(root=str(tmp_path / "m"), window=32)
    several.prepare()
    assert several.spec.channels == 3 and len({s.group for s in samples(several, "test")}) == 3


def refused(cls, root: Path, **how) -> str:
    return "\n".join(cls(root=str(root), **{"window": 32, **how}).verify().problems)


def test_what_is_wrong_is_named(tmp_path) -> None:
    folder = trees.ucr(tmp_path) / "UCR_Anomaly_FullData"
    assert "fewer steps than window=128 in held_out 64 (a smaller window)" in refused(
        UCRAnomaly, tmp_path, window=128
    )
    (folder / "003_UCR_Anomaly_a_10_5_6.txt").write_text("1\n2\n3\n")
    (folder / "004_UCR_Anomaly_b_10_12_13.txt").write_text("1 x 3")
    text = refused(UCRAnomaly, tmp_path)
    assert "the anomaly of its name, 5 to 6, is not between its 10 training steps" in text
    assert "004_UCR_Anomaly_b_10_12_13.txt holds something else than numbers" in text
    tables = trees.tsb_ad(tmp_path / "t") / "TSB-AD-U"
    first = next(tables.glob("001*"))
    first.write_text(first.read_text().replace("Label", "Truth"))
    second = next(tables.glob("002*"))
    lines = second.read_text().splitlines()
    second.write_text("\n".join([lines[0], lines[1][:-1] + "1", *lines[2:]]))
    text = refused(TSBAD, tmp_path / "t")
    assert "needs a column Label" in text and "has 1 abnormal training steps" in text
