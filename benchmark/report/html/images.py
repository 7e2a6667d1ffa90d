"""Images of the page, as data URIs, within a budget; and the files that they are read from.

Samples are cut from the contact sheet of a method, whose layout has the position of each image;
other files are shown whole. Each file must be the one that its record names.
"""

from __future__ import annotations

import base64
import io
import json
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


@dataclass
class ImageBudget:
    """The images that the page may still hold.

    left: bytes of base64        out: names of files that found no room
    damaged: files that could not be read, each with what mends it

    >>> from adbench.benchmark.report.html.images import ImageBudget
    >>> from PIL import Image
    >>> budget, image = ImageBudget(left=100), Image.new("L", (2, 2))
    >>> budget.inline(image, "small.png").partition(",")[0]
    'data:image/webp;base64'
    >>> ImageBudget(left=10).inline(image, "large.png") is None
    True
    """

    left: int = IMAGE_BYTES
    out: list[str] = field(default_factory=list)
    damaged: dict[str, None] = field(default_factory=dict)

    def inline(self, image: Image, name: str) -> str | None:
        """A data URI of the image as it is, or None where there is no room for it.

        WebP without loss takes four fifths of the bytes of PNG for maps, a third for drawings; PNG
        where Pillow lacks it.
        """
        from PIL import features

        kind = "webp" if features.check("webp") else "png"
        out = io.BytesIO()
        image.save(out, format=kind, **({"lossless": True, "method": 3} if kind == "webp" else {}))
        text = base64.b64encode(out.getvalue()).decode("ascii")
        if len(text) > self.left:
            self.out += [name] if name not in self.out else []
            return None
        self.left -= len(text)
        return f"data:image/{kind};base64,{text}"


@dataclass(frozen=True)
class EmbeddedImage:
    """An image in the page.

    uri: its data, None where it is left out for want of room
    name: of the file it is from      about: the text read in place of the image

    >>> from PIL import Image
    >>> from adbench.benchmark.report.html.images import EmbeddedImage, ImageBudget
    >>> budget = ImageBudget(left=0)
    >>> image = Image.new("L", (2, 2))
    >>> EmbeddedImage(budget.inline(image, "a.png"), "a.png", "Sheet of AnoDDPM").uri is None
    True
    """

    uri: str | None
    name: str
    about: str


@dataclass(frozen=True)
class Sheet:
    """The contact sheet of a method, as `write_contact_sheet` wrote it.

    name: of its file        samples: caption, whether abnormal, tags and boxes of each, by key
    levels: whose maps it has        chosen: one of them
    top: the map's value of the highest grey value

    >>> from PIL import Image
    >>> from adbench.benchmark.report.html.images import Sheet
    >>> samples = {"a": {"boxes": {"input": [0, 0, 2, 1]}}}
    >>> sheet = Sheet("a", Image.new("L", (2, 1)), samples, [], 0, 1)
    >>> sheet.tile("a", "input").size, sheet.tile("a", "truth")
    ((2, 1), None)
    """

    name: str
    image: Image
    samples: dict[str, dict[str, Any]]
    levels: list[int]
    chosen: int
    top: float

    def tile(self, key: str, column: str) -> Image | None:
        """One image of a sample; None where there is none."""
        box = self.samples.get(key, {"boxes": {}})["boxes"].get(column)
        if box is None:
            return None
        left, top, wide, high = box
        return self.image.crop((left, top, left + wide, top + high))


def open_contact_sheet(folder: Path, row: Entry, budget: ImageBudget) -> Sheet | None:
    """The contact sheet of an entry; None where there is none, it is damaged, or of an older kind.

    budget: where a damaged file is named

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.images import ImageBudget, open_contact_sheet
    >>> entry = example_leaderboard().done[0]
    >>> open_contact_sheet(Path("no/images"), entry, ImageBudget()) is None
    True
    """
    opened = open_image(folder, row, budget, ".contact")
    if opened is None:
        return None
    name, image = opened
    facts = _check_layout(getattr(image, "text", {}).get(LAYOUT, ""), image.size)
    if not facts:
        return None
    mode = image if image.mode in ("L", "RGB") else image.convert("RGB")
    return Sheet(name, mode, facts["samples"], facts["levels"], facts["chosen"], facts["top"])


def open_image(
    folder: Path, row: Entry, budget: ImageBudget, kind: str = ""
) -> tuple[str, Image] | None:
    """The name and the image of a file of an entry; None where there is none, or it is
    damaged.

    budget: where a damaged file is named        kind: "", ".worst" or ".contact"

    >>> from pathlib import Path
    >>> from adbench.benchmark.leaderboard.example_records import example_leaderboard
    >>> from adbench.benchmark.report.html.images import ImageBudget, open_image
    >>> open_image(Path("no/images"), example_leaderboard().done[0], ImageBudget()) is None
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
    return path.name, image


def _check_layout(text: str, size: tuple[int, int]) -> dict[str, Any]:
    """The layout of a contact sheet; empty where it is incomplete or does not fit its image."""
    try:
        layout = json.loads(text)
        samples = {
            str(sample["key"]): {
                "caption": str(sample["caption"]),
                "abnormal": bool(sample["abnormal"]),
                "tags": {str(tag): str(value) for tag, value in sample["tags"].items()},
                "boxes": {str(name): [*map(int, box)] for name, box in sample["boxes"].items()},
            }
            for sample in layout["samples"]
        }
        levels, top = [*map(int, layout["levels"])], float(layout["top"])
        chosen = int(layout["chosen"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    boxes = [box for sample in samples.values() for box in sample["boxes"].values()]
    fits = all(
        len(box) == 4
        and min(box[:2]) >= 0
        and min(box[2:]) >= 1
        and box[0] + box[2] <= size[0]
        and box[1] + box[3] <= size[1]
        for box in boxes
    )
    whole = all("input" in sample["boxes"] for sample in samples.values())
    if not (fits and whole and chosen in levels):
        return {}
    return {"samples": samples, "levels": levels, "chosen": chosen, "top": top}
