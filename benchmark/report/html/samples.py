"""Test samples on the page: input, truth, and of each method its map at every level, as data URIs.

They are cut from the contact sheets of the methods, whose maps are grey values: colour and scale
are filters of the page (colour_scales.py); the outline of the mask is drawn on each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.metrics.connected_components import Array
from ...evaluation.sample_results import SampleResults
from ...leaderboard.entry import Entry
from ...leaderboard.seed_groups import SeedGroup
from .colour_scales import ColourScale, colour_scale
from .images import EmbeddedImage, ImageBudget, Sheet, open_contact_sheet, open_image
from .sample_choices import SampleChoice, sample_choices, score_ranks


@dataclass(frozen=True)
class MapTile:
    """The images of one method of a sample.

    entry: index of the entry      images: by level, those that found room
    reconstruction: at the chosen level      rank: of the sample's score, 1 the most anomalous

    >>> from adbench.benchmark.report.html.samples import MapTile
    >>> MapTile(0, 250, {}).reconstruction is None
    True
    """

    entry: int
    chosen: int
    images: dict[int, str]
    reconstruction: str | None = None
    rank: str = ""


@dataclass(frozen=True)
class SampleCard:
    """A sample with the images of all methods.

    size: width and height in pixels      outline: of the mask, a path of SVG in these pixels

    >>> from adbench.benchmark.report.html.samples import SampleCard
    >>> SampleCard("a", "tumour", True, (8, 8), None, "", []).abnormal
    True
    """

    key: str
    caption: str
    abnormal: bool
    size: tuple[int, int]
    input: str | None
    outline: str
    maps: list[MapTile]


@dataclass(frozen=True)
class SamplePictures:
    """The pictures of a leaderboard.

    cards: all samples that were kept, abnormal ones first
    choices: orders and selections of these
    scales: of colours, by the index of the entry      levels: of all methods, in order
    whole: image files without single samples, of signals or of older runs
    names: of the entries, by index

    >>> from adbench.benchmark.report.html.samples import SamplePictures
    >>> SamplePictures().empty
    True
    """

    cards: list[SampleCard] = field(default_factory=list)
    choices: list[SampleChoice] = field(default_factory=list)
    scales: dict[int, ColourScale] = field(default_factory=dict)
    levels: list[int] = field(default_factory=list)
    whole: list[EmbeddedImage] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.cards and not self.whole


def picture_entries(methods: Sequence[SeedGroup], folder: Path) -> list[Entry]:
    """The entry of each method whose pictures are shown: of several seeds one, which its name says.

    folder: of the images; the first seed that has some is taken

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.leaderboard import build_leaderboards
    >>> from adbench.benchmark.report.html.samples import picture_entries
    >>> (board,) = build_leaderboards([example_record(seed=seed) for seed in (1, 0)])
    >>> [entry.name for entry in picture_entries(board.methods, Path("pictures"))]
    ['AnoDDPM, seed 0']
    """
    entries = []
    for group in methods:
        pictured = (entry for entry in group.entries if _has_pictures(folder, entry))
        entry = next(pictured, group.entries[0])
        several = f", seed {entry.record['seed']}" if len(group.entries) > 1 else ""
        entries.append(replace(entry, name=group.name + several))
    return entries


def _has_pictures(folder: Path, entry: Entry) -> bool:
    stem = Path(str(entry.record.get("file", ""))).stem
    return any((folder / f"{stem}{kind}.png").exists() for kind in (".contact", ""))


def sample_pictures(
    entries: Sequence[Entry],
    results: Mapping[int, SampleResults],
    folder: Path,
    budget: ImageBudget,
) -> SamplePictures:
    """Return the pictures of entries of a leaderboard.

    entries: of names that tell them apart      results: sample results, by index of the entry
    folder: of the images      budget: for the images that the page may hold

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from adbench.benchmark.figures.contact_sheet import write_contact_sheet
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.images import ImageBudget
    >>> from adbench.benchmark.report.html.samples import sample_pictures
    >>> entries, x = example_leaderboard().done, np.zeros((1, 8, 8))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "anoddpm-brats-0.contact.png"
    ...     write_contact_sheet(path, [DisplayedSample("patient 00", x)], {250: [x[0]]}, 250)
    ...     pictures = sample_pictures(entries, {}, Path(folder), ImageBudget())
    >>> [(card.key, [tile.entry for tile in card.maps]) for card in pictures.cards]
    [('patient 00', [0])]
    """
    sheets: dict[int, Sheet] = {}
    whole: list[EmbeddedImage] = []
    for k, entry in enumerate(entries):
        sheet = open_contact_sheet(folder, entry, budget)
        if sheet is not None:
            sheets[k] = sheet
            continue
        for ending, words in (("", "Test samples of"), (".worst", "Worst mistakes of")):
            image = open_image(folder, entry, budget, ending)
            if image is not None:
                about = f"{words} {entry.name}"
                whole.append(EmbeddedImage(budget.inline(image[1], image[0]), image[0], about))
    keys = list(dict.fromkeys(key for sheet in sheets.values() for key in sheet.samples))
    keys.sort(key=lambda key: not _first(sheets, key)["abnormal"])  # those with something to find
    ranks = {k: dict(zip(r.keys, score_ranks(r.score), strict=True)) for k, r in results.items()}
    images = _images(sheets, keys, budget)
    cards = [_card(key, sheets, images, ranks) for key in keys]
    of_entries = {k: results[k] for k in sheets if k in results}
    tags = {key: _first(sheets, key)["tags"] for key in keys}
    return SamplePictures(
        cards,
        sample_choices(keys, tags, of_entries, entries),
        {k: colour_scale(sheet) for k, sheet in sheets.items()},
        sorted({level for sheet in sheets.values() for level in sheet.levels if level}),
        whole,
        [entry.name for entry in entries],
    )


def _first(sheets: Mapping[int, Sheet], key: str) -> dict[str, Any]:
    return next(sheet.samples[key] for sheet in sheets.values() if key in sheet.samples)


def _images(
    sheets: Mapping[int, Sheet], keys: Sequence[str], budget: ImageBudget
) -> dict[tuple[int, str, str], str | None]:
    """Data URIs by (entry, key, column): maps at the chosen levels first, for these must fit, then
    reconstructions, then maps at the other levels."""
    wanted: list[list[tuple[int, str, str]]] = [[], [], []]
    for key in keys:
        have = [k for k, sheet in sheets.items() if key in sheet.samples]
        wanted[0].append((have[0], key, "input"))
        for k in have:
            wanted[0].append((k, key, f"map {sheets[k].chosen}"))
            wanted[1].append((k, key, "reconstruction"))
            wanted[2] += [
                (k, key, f"map {level}") for level in sheets[k].levels if level != sheets[k].chosen
            ]
    uris: dict[tuple[int, str, str], str | None] = {}
    for k, key, column in [each for part in wanted for each in part]:
        tile = sheets[k].tile(key, column)
        if tile is not None:
            uris[k, key, column] = budget.inline(tile, sheets[k].name)
    return uris


def _card(
    key: str,
    sheets: Mapping[int, Sheet],
    images: Mapping[tuple[int, str, str], str | None],
    ranks: Mapping[int, Mapping[str, float]],
) -> SampleCard:
    first = _first(sheets, key)
    have = [k for k, sheet in sheets.items() if key in sheet.samples]
    mask = sheets[have[0]].tile(key, "truth")
    tiles = []
    for k in have:
        by_level = {
            level: uri
            for level in sheets[k].levels
            if (uri := images.get((k, key, f"map {level}"))) is not None
        }
        rank = ranks.get(k, {}).get(key)
        text = "" if rank is None else f"rank {rank:g} of {len(ranks[k])}"
        reconstruction = images.get((k, key, "reconstruction"))
        tiles.append(MapTile(k, sheets[k].chosen, by_level, reconstruction, text))
    return SampleCard(
        key,
        first["caption"],
        first["abnormal"],
        (first["boxes"]["input"][2], first["boxes"]["input"][3]),
        images.get((have[0], key, "input")),
        "" if mask is None else outline_path(np.asarray(mask.convert("L")) > 127),
        tiles,
    )


def outline_path(mask: Array) -> str:
    """The borders of the pixels of a mask (H, W), as a path of SVG in units of pixels.

    >>> import numpy as np
    >>> from adbench.benchmark.report.html.samples import outline_path
    >>> outline_path(np.array([[False, True], [False, False]]))
    'M1 0h1M1 1h1M1 0v1M2 0v1'
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    parts = []
    for axis, step in ((0, "h"), (1, "v")):
        lines = np.diff(padded.astype("i1"), axis=axis) != 0
        lines = (lines if axis == 0 else lines.T)[:, 1:-1]
        for at, line in enumerate(lines):
            ends = np.flatnonzero(np.diff(np.pad(line.astype("i1"), 1)))
            for start, end in ends.reshape(-1, 2).tolist():
                x, y = (start, at) if axis == 0 else (at, start)
                parts.append(f"M{x} {y}{step}{end - start}")
    return "".join(parts)
