"""Tables beside a user's images: boxes around anomalies, and what is known of each image.

    <root>/boxes.csv       file,x,y,width,height       a row per box
    <root>/metadata.csv    file,age,sex,...            a row per image

`file` is the path below the root, or the file's name where no two images share it; so fastMRI+ and
the chest radiographs of the RSNA lay out boxes, but for the name of that column.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..base import DataError
from ..io.csv import read_rows, repeated_row_problems

BOXES, METADATA = "boxes.csv", "metadata.csv"
BOX_COLUMNS = ("x", "y", "width", "height")


@dataclass
class ImageTables:
    """What the tables say.

    boxes: of each image that has any, (top, left, bottom, right) in pixels of the stored image
    metadata: of each image, by column; blank fields are left out
    files: the tables that were read
    problems: one line each

    >>> ImageTables().boxes
    {}
    """

    boxes: dict[Path, list[list[float]]] = field(default_factory=dict)
    metadata: dict[Path, dict[str, str]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_image_tables(base: Path, images: Sequence[Path]) -> ImageTables:
    """Return the boxes and metadata of images; empty where the tables are not there.

    base: the folder that holds the tables
    images: the images below it

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     image = Path(folder, "test/ill/0.png")
    ...     _ = Path(folder, "boxes.csv").write_text("file,x,y,width,height\\n0.png,4,8,2,3\\n")
    ...     tables = read_image_tables(Path(folder), [image])
    >>> list(tables.boxes.values())
    [[[8.0, 4.0, 11.0, 6.0]]]
    """
    tables = ImageTables()
    by_name: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        for name in {image.relative_to(base).as_posix(), image.name}:
            by_name[name].append(image)
    for name, columns in ((BOXES, BOX_COLUMNS), (METADATA, ())):
        path = base / name
        if not path.is_file():
            continue
        tables.files.append(path)
        try:
            rows = read_rows(path, ["file", *columns], name)
        except DataError as error:
            tables.problems.append(error.summary)
            continue
        images_of_rows = []
        for line, row in rows:
            image = _image_of(row, by_name, f"{name} line {line}", tables.problems)
            if image is not None:
                images_of_rows.append((line, image, row))
        if name == BOXES:
            _add_boxes(tables, images_of_rows)
        else:
            _add_metadata(tables, images_of_rows, base)
    return tables


def _image_of(
    row: Mapping[str, str], by_name: Mapping[str, list[Path]], where: str, problems: list[str]
) -> Path | None:
    images = by_name.get(row["file"].strip(), [])
    if len(images) != 1:
        count = "no image" if not images else f"{len(images)} images"
        problems.append(f"{where}: {row['file']!r} is the name of {count}")
        return None
    return images[0]


def _add_boxes(tables: ImageTables, rows: Sequence[tuple[int, Path, Mapping[str, str]]]) -> None:
    for line, image, row in rows:
        try:
            x, y, width, height = (float(row[column]) for column in BOX_COLUMNS)
        except ValueError:
            x = y = width = height = math.nan
        if not (math.isfinite(x + y) and 0 < width < math.inf and 0 < height < math.inf):
            numbers = ", ".join(row[column] or "nothing" for column in BOX_COLUMNS)
            tables.problems.append(f"{BOXES} line {line}: {numbers} is no box with an area")
            continue
        tables.boxes.setdefault(image, []).append([y, x, y + height, x + width])


def _add_metadata(
    tables: ImageTables, rows: Sequence[tuple[int, Path, Mapping[str, str]]], base: Path
) -> None:
    names = [(METADATA, line, image.relative_to(base).as_posix()) for line, image, _ in rows]
    tables.problems += repeated_row_problems(names)
    for _, image, row in rows:
        values = {key: value.strip() for key, value in row.items() if key != "file"}
        reserved = sorted({"boxes", "kind"} & values.keys())
        if reserved:
            problem = f"{METADATA}: the column {reserved[0]!r} has another meaning; rename it"
            tables.problems += [] if problem in tables.problems else [problem]
            continue
        tables.metadata[image] = {key: value for key, value in values.items() if value}
