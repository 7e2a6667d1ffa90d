"""Sheets, read back: the right colours at the right places, whatever the number of axes."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from adbench.benchmark.evaluation.sample_results import SampleResults
from adbench.benchmark.figures.contact_sheet import (
    HIGHEST,
    LOWEST,
    MAX_SAMPLES,
    THUMBNAIL_SIDE,
    choose_samples,
    thumbnail,
)
from adbench.benchmark.figures.gallery import worst_mistakes, write_figures
from adbench.benchmark.figures.sample_sheet import (
    CAPTION,
    EDGE,
    GAP,
    HEAD,
    LAYOUT,
    PAPER,
    SIGNAL,
    TITLE,
    DisplayedSample,
    heat_colours,
    outline,
    write_sheet,
)
from adbench.datasets.base import Sample

TOP = TITLE + HEAD


def shown(shape=(32, 32), **other):
    x = np.full((2, *shape), 0.25, np.float32)
    x[1] = 0.75
    mask = np.zeros(shape, bool)
    mask[tuple(slice(n // 4, n // 2) for n in shape)] = True
    inputs = {
        "reconstruction": np.full_like(x, 2.0),
        "map": mask * 3.0,
        "mask": mask,
        "roi": np.ones(shape, bool),
        "counterpart": np.zeros_like(x),
        "caption": "stroke",
    }
    return DisplayedSample("val/0001", x, **(inputs | other))


def read(path):
    return np.asarray(Image.open(path))


def tile(page, row, column, side=160):
    y, x = TOP + row * (side + CAPTION + GAP), GAP + column * (side + GAP)
    return page[y : y + side, x : x + side]


def test_columns_are_input_reconstruction_map_truth_and_twin(tmp_path):
    write_sheet(tmp_path / "a.png", [shown(), shown()], title="AnoDDPM")
    page = read(tmp_path / "a.png")
    assert page.shape == (TOP + 2 * (160 + CAPTION + GAP), GAP + 5 * (160 + GAP), 3)
    for row in (0, 1):
        assert (tile(page, row, 0) == 64).all()
        assert (tile(page, row, 1) == 255).all()  # clipped: the window is 0 to 1
        assert (tile(page, row, 2)[40:80, 40:80] == heat_colours(np.array(1.0))).all()
        assert (tile(page, row, 2)[:40] == heat_colours(np.array(0.0))).all()
        edge = (tile(page, row, 3) == EDGE).all(-1)
        assert edge.sum() == 4 * 39 and edge[40, 40:80].all() and not edge[41:79, 41:79].any()
        assert (tile(page, row, 4) == 0).all()
    assert (page[:TITLE].max() > 200) and page[TOP + 160 : TOP + 160 + CAPTION].max() > 100


def test_the_channel_shown_can_be_chosen(tmp_path):
    write_sheet(tmp_path / "a.png", [shown()], channel=1)
    assert (tile(read(tmp_path / "a.png"), 0, 0) == 191).all()


def test_what_no_sample_has_gets_no_column_and_what_one_lacks_stays_empty(tmp_path):
    bare = shown(reconstruction=None, map=None, mask=None, roi=None, counterpart=None)
    write_sheet(tmp_path / "a.png", [bare])
    assert read(tmp_path / "a.png").shape[1] == GAP + 160 + GAP
    write_sheet(tmp_path / "b.png", [shown(counterpart=None), bare])
    page = read(tmp_path / "b.png")
    assert page.shape[1] == GAP + 4 * (160 + GAP)
    assert (tile(page, 1, 1) == PAPER).all() and (tile(page, 1, 2) == PAPER).all()
    assert (tile(page, 1, 3) == 64).all()


def test_all_maps_share_one_window_and_places_outside_the_roi_have_no_say(tmp_path):
    roi = np.ones((32, 32), bool)
    roi[0] = False
    loud = np.full((32, 32), 2.0)
    loud[0] = 1000
    write_sheet(tmp_path / "a.png", [shown(map=np.ones((32, 32))), shown(map=loud, roi=roi)])
    page = read(tmp_path / "a.png")
    assert (tile(page, 0, 2) == heat_colours(np.array(0.5))).all()
    assert (tile(page, 1, 2)[5:] == heat_colours(np.array(1.0))).all()
    assert (tile(page, 1, 2)[:5] == heat_colours(np.array(0.0))).all()


def test_a_map_of_nothing_is_dark(tmp_path):
    write_sheet(tmp_path / "a.png", [shown(map=np.zeros((32, 32)))])
    assert (tile(read(tmp_path / "a.png"), 0, 2) == heat_colours(np.array(0.0))).all()


def test_of_a_volume_the_slice_with_most_of_the_mask_is_shown(tmp_path):
    x = np.zeros((1, 8, 32, 32))
    x[0, 6] = 1
    mask = np.zeros((8, 32, 32), bool)
    mask[2, 4, 4] = mask[6, 4:8, 4:8] = True
    volume = DisplayedSample("v", x, map=mask * 1.0, mask=mask)
    plain = DisplayedSample(
        "w", np.linspace(0, 1, 8)[None, :, None, None] * np.ones((1, 8, 32, 32))
    )
    write_sheet(tmp_path / "a.png", [volume, plain])
    page = read(tmp_path / "a.png")
    assert (tile(page, 0, 0) == 255).all()
    assert (tile(page, 1, 0) == round(255 * 4 / 7)).all()


def test_signals_are_curves_with_the_truth_shaded(tmp_path):
    signal = shown(shape=(64,))
    write_sheet(tmp_path / "a.png", [signal, shown(shape=(64,), map=None, mask=None)])
    page = read(tmp_path / "a.png")
    assert page.shape[1] == 3 * SIGNAL + 2 * GAP
    shade = (page[TOP + 1] == (0, 60, 34)).all(-1)
    assert shade.sum() == 3 * SIGNAL // 4 and shade[GAP + 3 * SIGNAL // 4 + 5]
    assert (page == (237, 105, 37)).all(-1).any() and (page == (90, 170, 255)).all(-1).any()


def test_a_sheet_tells_where_its_tiles_stand(tmp_path):
    write_sheet(tmp_path / "a.png", [shown(), shown((32, 16), caption="")])
    page = read(tmp_path / "a.png")
    output = getattr(Image.open(tmp_path / "a.png"), "text", {})
    layout = json.loads(output[LAYOUT])
    assert [row["key"] for row in layout["rows"]] == ["val/0001"] * 2
    assert [row["caption"] for row in layout["rows"]] == ["stroke", ""]
    assert layout["window"] == pytest.approx(3.0) and layout["enlarged"] == 5
    for row, wide in zip(layout["rows"], (160, 80), strict=True):
        assert row["size"] == [wide, 160]
        left, top = layout["columns"]["input"], row["top"]
        assert (page[top : top + 160, left : left + wide] == 64).all()
        left = layout["columns"]["reconstruction"]
        assert (page[top : top + 160, left : left + wide] == 255).all()
    write_sheet(tmp_path / "b.png", [shown(shape=(64,))])
    assert LAYOUT not in getattr(Image.open(tmp_path / "b.png"), "text", {})


def test_a_sheet_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "a.png"
    write_sheet(path, [shown()])
    before = path.read_bytes()
    write_sheet(path, [shown()])
    assert path.read_bytes() == before

    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        write_sheet(path, [shown(map=None)])
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match="at least one"):
        write_sheet(path, [])


def test_the_colour_ramp_brightens_steadily():
    light = heat_colours(np.linspace(0, 1, 200)) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(light) >= 0).all() and light[0] < 5 and light[-1] > 240
    assert (heat_colours(np.array([-1.0, 2.0])) == heat_colours(np.array([0.0, 1.0]))).all()


def test_an_outline_is_one_place_wide():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    edge = outline(mask)
    assert edge.sum() == 16 and not edge[2:5, 2:5].any()


def test_the_worst_mistakes_are_the_abnormal_ranked_lowest_and_the_normal_ranked_highest():
    score = np.array([0.1, 0.9, 0.5, 0.2, 0.8, 0.3, 0.95, 0.05])
    label = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    rows = SampleResults(list("abcdefgh"), ["g"] * 8, label, score, None, {}, {})
    text = worst_mistakes(rows)
    assert [rows.keys[k] for k, _ in text] == ["a", "d", "c", "g", "e", "f"]
    assert text[0][1] == "missed: 75% of normal samples score higher"
    assert text[3][1] == "false alarm: 100% of abnormal samples score lower"
    right = SampleResults(list("ab"), ["g"] * 2, label[3:5], np.array([2.0, 1.0]), None, {}, {})
    assert worst_mistakes(right) == []
    assert worst_mistakes(SampleResults(["a"], ["g"], label[:1], score[:1], None, {}, {})) == []


def test_mistakes_are_drawn_from_the_maps_of_the_chosen_level(tmp_path):
    keys = ["n0", "n1", "a0", "a1"]
    samples = [
        Sample(torch.full((1, 16, 16), 0.1 * i), key, key, i > 1, torch.zeros(16, 16) > 0)
        for i, key in enumerate(keys)
    ]
    maps = np.zeros((2, 4, 16, 16), np.float32)
    maps[1, 1], maps[1, 2] = 2.0, 1.0
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["levels"], file["gallery"], file["map"] = np.array([100, 250]), np.array([0]), maps
        file["reconstruction"] = np.zeros((2, 1, 1, 16, 16), np.float32)
    label = np.array([0, 0, 1, 1], bool)
    rows = SampleResults(keys, keys, label, np.array([0.0, 2.0, 1.0, 3.0]), None, {}, {})
    title = "A on made-up, profile tiny"
    path = tmp_path / "a.worst.png"
    write_figures(title, samples, tmp_path / "maps.h5", 250, rows, tmp_path / "a.png")
    layout = json.loads(getattr(Image.open(path), "text", {})[LAYOUT])
    assert [row["key"] for row in layout["rows"]] == ["a0", "n1"]
    assert "missed: 50% of normal" in layout["rows"][0]["caption"]
    page, left = read(path), layout["columns"]["map"]
    tops = [row["top"] for row in layout["rows"]]
    colours = [page[top + 5, left + 5].tolist() for top in tops]
    assert colours == [heat_colours(np.array(share)).tolist() for share in (0.5, 1.0)]
    prints = json.loads(getattr(Image.open(tmp_path / "a.contact.png"), "text", {})[LAYOUT])
    assert [sample["key"] for sample in prints["samples"]] == keys
    assert [*prints["samples"][0]["boxes"]] == [
        *("input", "truth", "reconstruction", "map 100", "map 250")
    ]
    sheet, top = read(tmp_path / "a.contact.png"), prints["top"]
    for sample, value in zip(prints["samples"], (0.0, 2.0, 1.0, 0.0), strict=True):
        for level, expected in ((100, 0.0), (250, value)):
            left, upper, *_ = sample["boxes"][f"map {level}"]
            share = min(expected / top, 1)
            assert sheet[upper + 5, left + 5] == LOWEST + round(share * (HIGHEST - LOWEST))
    assert (prints["levels"], prints["chosen"], top) == ([100, 250], 250, 2.0)
    shown_ = json.loads(getattr(Image.open(tmp_path / "a.png"), "text", {})[LAYOUT])
    assert [row["key"] for row in shown_["rows"]] == ["n0"]
    write_figures(title, samples[:2], tmp_path / "maps.h5", 250, pick(rows, 2), tmp_path / "a.png")
    assert not path.exists(), "nothing is wrong any more"


def test_a_contact_sheet_holds_the_same_samples_whatever_the_order():
    keys = [f"s{i}" for i in range(200)]
    label = np.arange(200) % 2 == 0
    picked = {keys[i] for i in choose_samples(keys, label)}
    assert (
        len(picked) == MAX_SAMPLES
        and sum(int(key[1:]) % 2 == 0 for key in picked) == MAX_SAMPLES * 2 // 3
    )
    order = np.random.default_rng(0).permutation(200)
    moved = [keys[i] for i in order]
    assert {moved[i] for i in choose_samples(moved, label[order])} == picked
    fewer = choose_samples(keys[:100], label[:100])
    assert picked & {*keys[:100]} <= {keys[i] for i in fewer}
    assert (
        len(choose_samples(keys, np.ones(200, bool)))
        == len(choose_samples(keys, np.zeros(200, bool)))
        == MAX_SAMPLES
    )
    rare = np.arange(200) < 3
    assert {0, 1, 2} <= {*choose_samples(keys, rare)} and len(
        choose_samples(keys, rare)
    ) == MAX_SAMPLES
    assert choose_samples([], np.zeros(0, bool)) == [] and choose_samples(keys[:2], label[:2]) == [
        0,
        1,
    ]


def test_a_print_is_small_and_keeps_what_it_shows():
    x = np.zeros((1, 200, 300), np.float32)
    x[0, :100] = 0.5
    mask = np.zeros((200, 300), bool)
    mask[7, 11] = True
    built = thumbnail(DisplayedSample("a", x, x, x[0] * 4, mask, counterpart=x))
    assert built.x.shape == (1, 50, 75) and max(built.x.shape) <= THUMBNAIL_SIDE
    assert built.map is not None and built.map[0, 0] == 2 and built.map[49, 74] == 0
    assert built.mask is not None and np.argwhere(built.mask).tolist() == [[1, 2]]
    assert built.reconstruction is not None and built.reconstruction.shape == (1, 50, 75)
    assert built.counterpart is None
    volume = np.zeros((1, 5, 16, 16), np.float32)
    inside = np.zeros((5, 16, 16), bool)
    inside[3, 4, 4], volume[0, 3] = True, 0.75
    slice_ = thumbnail(DisplayedSample("v", volume, map=volume[0], mask=inside))
    assert slice_.x.shape == (1, 16, 16) and (slice_.x == 0.75).all()
    assert "slice 3" in slice_.caption


def pick(rows, size):
    few = rows.keys[:size], rows.groups[:size], rows.label[:size], rows.score[:size]
    return SampleResults(*few, None, {}, {})
