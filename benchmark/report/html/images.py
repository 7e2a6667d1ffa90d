"""Images of the page: tiles cut from the sheets of several methods, side by side, as data URIs.

The layout in a sheet has the position of each tile; a sheet without one is shown whole. Windows are
the sheets' own: values from 0 to 1, and each method's maps from 0 to what is named above them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...figures.sample_sheet import LAYOUT
from ...leaderboard.entry import Entry
from ...leaderboard.records import DamagedFile, read_sealed

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_BYTES = 12_000_000
"""Bytes of images in the page, at most; those beyond are left out."""

SHARED_COLUMNS = ("input", "truth", "without anomaly")
METHOD_COLUMNS = ("reconstruction", "map")


@dataclass
class ImageBudget:
    """The images that the page may still hold.

    left: bytes of base64        out: names of files that found no room
    damaged: files that could not be read, each with what mends it

    >>> from adbench.benchmark.report.html.images import ImageBudget
    >>> budget = ImageBudget(left=10)
    >>> budget.inline(b"abc", "small.png"), budget.inline(b"abcdef", "large.png")
    ('data:image/png;base64,YWJj', None)
    >>> budget.left, budget.out
    (6, ['large.png'])
    """

    left: int = IMAGE_BYTES
    out: list[str] = field(default_factory=list)
    damaged: dict[str, None] = field(default_factory=dict)

    def inline(self, png: bytes, name: str) -> str | None:
        """A data URI, or None where there is no room for it."""
        text = base64.b64encode(png).decode("ascii")
        if len(text) > self.left:
            self.out += [name] if name not in self.out else []
            return None
        self.left -= len(text)
        return f"data:image/png;base64,{text}"


@dataclass(frozen=True)
class EmbeddedImage:
    """An image in the page.

    uri: its data, None where it is left out for want of room
    name: of the file it is from      about: the text read in place of the image

    >>> from adbench.benchmark.report.html.images import EmbeddedImage, ImageBudget
    >>> budget = ImageBudget(left=0)
    >>> EmbeddedImage(budget.inline(b"abc", "a.png"), "a.png", "Sheet of AnoDDPM").uri is None
    True
    """

    uri: str | None
    name: str
    about: str


@dataclass(frozen=True)
class ImageGrid:
    """A grid of images: a row per sample, columns of the sample and of each method.

    columns: (method, title), the method empty for what all methods share
    rows: (key, caption, images) of each sample, None where a method has no image

    >>> from adbench.benchmark.report.html.images import ImageGrid
    >>> grid = ImageGrid([("", "input"), ("AnoDDPM", "map")], [("a", "tumour", [None, None])])
    >>> [f"{method} {title}".strip() for method, title in grid.columns]
    ['input', 'AnoDDPM map']
    """

    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, list[EmbeddedImage | None]]]


@dataclass(frozen=True)
class SampleImages:
    """The images of a leaderboard.

    gallery: the same samples of every method
    sheets: whole files, of galleries without a layout and of each method's worst mistakes
    disagreements: samples that methods rank most differently

    >>> from adbench.benchmark.report.html.images import ImageGrid, SampleImages
    >>> SampleImages(ImageGrid([], []), []).empty
    True
    """

    gallery: ImageGrid
    sheets: list[EmbeddedImage]
    disagreements: ImageGrid = field(default_factory=lambda: ImageGrid([], []))

    @property
    def empty(self) -> bool:
        return not self.gallery.rows and not self.sheets and not self.disagreements.rows


def sample_images(rows: Sequence[Entry], folder: Path, budget: ImageBudget) -> SampleImages:
    """Return the gallery of entries: of each sample input and truth, then each method's images.

    folder: of the images      budget: for the images that the page may hold

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample, write_sheet
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.images import ImageBudget, sample_images
    >>> x = np.zeros((1, 8, 8))
    >>> with TemporaryDirectory() as folder:
    ...     write_sheet(Path(folder) / "anoddpm-brats-0.png", [DisplayedSample("a", x, map=x[0])])
    ...     images = sample_images(example_leaderboard().done, Path(folder), ImageBudget())
    >>> images.gallery.columns
    [('', 'input'), ('AnoDDPM', 'map, 0 to 1')]
    """
    sheets = [
        (row, sheet) for row in rows if (sheet := open_sheet(folder, row, budget)) is not None
    ]
    tiled = [(row, sheet) for row, sheet in sheets if sheet.layout]
    samples = {s["key"]: s["caption"] for _, sheet in tiled for s in sheet.layout["rows"]}
    table = image_grid(tiled, samples, METHOD_COLUMNS, budget)
    whole = [
        EmbeddedImage(budget.inline(sheet.png, sheet.name), sheet.name, f"Sheet of {row.name}")
        for row, sheet in sheets
        if not sheet.layout
    ]
    for row in rows:
        if (sheet := open_sheet(folder, row, budget, ".worst")) is not None:
            about = f"Worst misses and false alarms of {row.name}"
            whole.append(EmbeddedImage(budget.inline(sheet.png, sheet.name), sheet.name, about))
    return SampleImages(table, whole)


def image_grid(
    tiled: Sequence[tuple[Entry, Sheet]],
    samples: Mapping[str, str],
    own: Sequence[str],
    budget: ImageBudget,
) -> ImageGrid:
    """Return a grid with the shared columns once, and with columns of each method.

    tiled: entries and their sheets      samples: captions by key
    own: columns that each method has for itself      budget: for the images that the page may hold

    >>> from adbench.benchmark.report.html.images import ImageBudget, image_grid
    >>> image_grid([], {"a": "tumour"}, ("map",), ImageBudget()).rows
    [('a', 'tumour', [])]
    """
    columns: list[tuple[str, str, list[Sheet]]] = []
    for name in SHARED_COLUMNS:
        have = [sheet for _, sheet in tiled if name in sheet.layout["columns"]]
        columns += [("", name, have)] if have else []
    for row, sheet in tiled:
        for name in own:
            if name in sheet.layout["columns"]:
                window = f", 0 to {sheet.layout['window']:.3g}" if name == "map" else ""
                columns.append((row.name, name + window, [sheet]))
    table = []
    for key, caption in samples.items():
        cells = [_first_tile(sheets, key, head, who, budget) for who, head, sheets in columns]
        table.append((key, caption, cells))
    return ImageGrid([(who, head) for who, head, _ in columns], table)


@dataclass(frozen=True)
class Sheet:
    """An image file of an entry; layout says where its tiles are, and is empty where it has none.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from adbench.benchmark.figures.sample_sheet import DisplayedSample, write_sheet
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.images import ImageBudget, Sheet, open_sheet
    >>> with TemporaryDirectory() as folder:
    ...     sample = DisplayedSample("a", np.zeros((1, 8, 8)))
    ...     write_sheet(Path(folder) / "anoddpm-brats-0.png", [sample])
    ...     sheet = open_sheet(Path(folder), example_leaderboard().done[0], ImageBudget())
    >>> list(sheet.layout["columns"]), sheet.tile("a", "input")[1:4], sheet.tile("a", "map")
    (['input'], b'PNG', None)
    """

    name: str
    png: bytes
    image: Image
    layout: dict[str, Any]

    def tile(self, key: str, column: str) -> bytes | None:
        """One tile as a PNG at the resolution of its data; None where there is none."""
        sample = next((s for s in self.layout["rows"] if s["key"] == key), None)
        if sample is None or column not in self.layout["columns"]:
            return None
        left, top = self.layout["columns"][column], sample["top"]
        wide, high = sample["size"]
        tile = self.image.crop((left, top, left + wide, top + high))
        by = self.layout["enlarged"]
        if column != "truth" and by > 1:  # the outline of the mask is finer than a pixel
            tile = tile.resize((wide // by, high // by), resample=0)
        out = io.BytesIO()
        tile.save(out, format="PNG")
        return out.getvalue()


def _first_tile(
    sheets: Sequence[Sheet], key: str, head: str, who: str, budget: ImageBudget
) -> EmbeddedImage | None:
    column = head.split(",")[0]
    for sheet in sheets:
        png = sheet.tile(key, column)
        if png is not None:
            about = f"{column} of {key}" + (f" by {who}" if who else "")
            return EmbeddedImage(budget.inline(png, sheet.name), sheet.name, about)
    return None


def open_sheet(folder: Path, row: Entry, budget: ImageBudget, kind: str = "") -> Sheet | None:
    """The image file of an entry; None where there is none, or it is damaged.

    budget: where a damaged file is named        kind: "", ".worst" or ".contact"

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.images import ImageBudget, open_sheet
    >>> open_sheet(Path("no/images"), example_leaderboard().done[0], ImageBudget()) is None
    True
    """
    from PIL import Image

    name = row.record.get("file")
    if not name:
        return None
    path = folder / f"{Path(str(name)).stem}{kind}.png"
    try:
        png = read_sealed(row.record, path)
        image = Image.open(io.BytesIO(png))
        image.load()
        layout = _check_layout(getattr(image, "text", {}).get(LAYOUT, ""), image.size)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        budget.damaged[str(error)] = None
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        message = f"{path} is no whole image ({reason}): the same `adbench run` writes it again"
        budget.damaged[message] = None
        return None
    return Sheet(path.name, png, image if image.mode == "RGB" else image.convert("RGB"), layout)


def _check_layout(text: str, size: tuple[int, int]) -> dict[str, Any]:
    """The layout; empty where it is incomplete or does not fit a sheet of this size."""
    try:
        layout = json.loads(text)
        columns = {str(name): int(x) for name, x in layout["columns"].items()}
        rows = [
            {
                "key": str(row["key"]),
                "caption": str(row["caption"]),
                "top": int(row["top"]),
                "size": (int(row["size"][0]), int(row["size"][1])),
            }
            for row in layout["rows"]
        ]
        by, window = int(layout["enlarged"]), float(layout["window"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return {}
    inside = all(
        x >= 0 and x + row["size"][0] <= size[0] and 0 <= row["top"] <= size[1] - row["size"][1]
        for row in rows
        for x in columns.values()
    )
    small = all(min(row["size"]) >= by >= 1 for row in rows)
    layout = {"columns": columns, "rows": rows, "enlarged": by, "window": window}
    return layout if inside and small else {}
