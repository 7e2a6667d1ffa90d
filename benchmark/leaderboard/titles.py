"""Short titles of datasets, for headings: `SynthBrain (demo), synthetic, FLAIR`.

A title names what a reader must know; all arguments of the dataset stand elsewhere. What tells
leaderboards of one title apart is appended by `unique_titles`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .records import Record

DATASET_LABELS = {
    "brats": "BraTS",
    "brats-slices": "BraTS slices",
    "synthbrain": "SynthBrain",
    "phantom": "Phantom",
    "nfbs-edinburgh": "NFBS and Edinburgh",
    "ixi-brats": "IXI and BraTS",
    "ixi-mslub": "IXI and MSLUB",
    "ixi-atlas": "IXI and ATLAS",
    "decathlon": "Decathlon",
    "volumes": "Own volumes",
    "mvtec": "MVTec AD",
    "visa": "VisA",
    "oct2017": "OCT2017",
    "chexpert": "CheXpert",
    "folder": "Own images",
    "rf-challenge": "RF Challenge",
    "idx": "IDX images",
    "hdf5": "Own HDF5",
    "bmad": "BMAD",
    "medianomaly": "MedIAnomaly",
    "btad": "BTAD",
    "mpdd": "MPDD",
    "mvtec-loco": "MVTec LOCO AD",
    "mvtec-3d": "MVTec 3D-AD",
    "mvtec-ad2": "MVTec AD 2",
    "real-iad": "Real-IAD",
    "tsb-ad": "TSB-AD",
    "ucr-anomaly": "UCR anomaly archive",
    "uad-imag-brats-t1": "UAD-IMAG: BraTS T1",
    "uad-imag-brats-t2": "UAD-IMAG: BraTS T2",
    "uad-imag-shifts-t1": "UAD-IMAG: SHIFTS T1",
    "uad-imag-shifts-t2": "UAD-IMAG: SHIFTS T2",
    "uad-imag-atlas-i-t1": "UAD-IMAG: ATLAS I T1",
    "uad-imag-atlas-o-t1": "UAD-IMAG: ATLAS O T1",
    "uad-imag-atlas-n-t1": "UAD-IMAG: ATLAS N T1",
    "uad-imag-wmh-t1": "UAD-IMAG: WMH T1",
}
"""How the datasets that come with adbench are spelt; any other is called by its name."""

TITLE_ARGUMENTS = ("modality", "modalities", "task", "category", "inside", "sequence", "contrast")
"""Arguments of datasets whose values belong in a title."""

SIDES = {
    name: ("R", "L")
    for name in DATASET_LABELS
    if name in ("brats", "volumes", "decathlon") or name.startswith("uad-imag-")
}
"""The sides of the patient at the left and right border of a displayed slice, of datasets that turn
their volumes so (datasets/transforms/crops.py); of others the sides are not known."""

MAX_WORD = 32
"""Letters of an argument in a title; longer ones are left to the list of arguments."""


def dataset_title(dataset: Mapping[str, Any]) -> str:
    """The short title of the dataset of a record: its label, preset, whether it is synthetic, and
    what is measured.

    >>> from adbench.benchmark.leaderboard.titles import dataset_title
    >>> args = {"preset": "demo", "modalities": "flair", "size": None, "seed": 0}
    >>> dataset_title({"name": "synthbrain", "args": args, "synthetic": True})
    'SynthBrain (demo), synthetic, FLAIR'
    >>> dataset_title({"name": "mvtec/hazelnut", "args": {}, "synthetic": False})
    'MVTec AD: hazelnut'
    """
    name, args = str(dataset["name"]), dataset.get("args") or {}
    first, _, rest = name.partition("/")
    title = DATASET_LABELS.get(first, first) + (f": {rest}" if rest else "")
    preset = args.get("preset")
    if isinstance(preset, str) and 0 < len(preset) <= MAX_WORD:
        title += f" ({preset})"
    words = ["synthetic"] if dataset.get("synthetic") else []
    for argument in TITLE_ARGUMENTS:
        text = _title_word(argument, args.get(argument))
        if text and text.casefold() != rest.casefold():
            words.append(text)
    return ", ".join([title, *words])


def _title_word(argument: str, value: Any) -> str:
    """The words of an argument in a title; empty for what is no word, or too long."""
    values = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(each, str) for each in values):
        return ""
    text = " ".join(values)
    if argument in ("modality", "modalities", "sequence", "contrast"):
        text = text.upper()
    return text if len(text) <= MAX_WORD else ""


def leaderboard_title(record: Record) -> str:
    """The title of a leaderboard of which this is a record, with a warning on a trial run.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.titles import leaderboard_title
    >>> leaderboard_title(example_record() | {"partial": 16})
    'BraTS, trial run on at most 16 samples: do not quote'
    """
    title = dataset_title(record["dataset"])
    if record["partial"]:
        title += f", trial run on at most {record['partial']} samples: do not quote"
    return title


def unique_titles(records: Sequence[Record]) -> list[str]:
    """The titles of leaderboards, each by one of its records, so that no two are equal.

    Where short titles are equal, the arguments, the protocol or the data in which they differ are
    appended.

    >>> from adbench.benchmark.leaderboard.example_records import example_record
    >>> from adbench.benchmark.leaderboard.titles import unique_titles
    >>> records = [example_record(), example_record()]
    >>> records[0]["dataset"]["args"], records[1]["dataset"]["args"] = {"size": 32}, {"size": 64}
    >>> unique_titles(records)
    ['BraTS, size=32', 'BraTS, size=64']
    """
    titles = [leaderboard_title(record) for record in records]
    for facts in (_arguments, _protocol_name, _protocol_id, _fingerprint):
        by_title: dict[str, list[int]] = {}
        for i, title in enumerate(titles):
            by_title.setdefault(title, []).append(i)
        for same in by_title.values():
            if len(same) > 1:
                of_each = [facts(records[i]) for i in same]
                for i, own in zip(same, of_each, strict=True):
                    titles[i] += "".join(
                        f", {text}"
                        for name, text in own.items()
                        if len({other.get(name) for other in of_each}) > 1
                    )
    return titles


def _arguments(record: Record) -> dict[str, str]:
    return {
        name: f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in sorted(record["dataset"]["args"].items())
    }


def _protocol_name(record: Record) -> dict[str, str]:
    return {"protocol": f"protocol {record['protocol'].get('name') or record['protocol']['id']}"}


def _protocol_id(record: Record) -> dict[str, str]:
    return {"protocol": f"protocol {record['protocol']['id']}"}


def _fingerprint(record: Record) -> dict[str, str]:
    data = record["dataset"]
    return {"name": f"dataset {data['name']}", "data": f"data {data['fingerprint'] or 'unknown'}"}
