"""One cell, start to end: fit or recall, look at held-out, validation and test, judge, record.

Every stage asks the store first; what was killed goes on from what it kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from ...datasets.base import Dataset
from ...engine.runtime.run import Run
from ...methods.base import Method
from ..evaluation.evaluate import Seen, judge
from ..evaluation.sample_results import read, read_record, write
from ..evaluation.synthetic_anomalies import beside
from ..evaluation.tile_stitching import Stitched, Wholes, truths
from ..figures.gallery import array, show, stored
from ..registry.code_fingerprint import loaded_code, modules_digest
from ..store.artifact_store import Artefact, Store, atomic_path, canonical_json
from ..store.cache_key import key_of, plain
from .distributed import calling
from .fit_predict import Tell, fit, look, look_along, recall
from .matrix import (
    PARTS,
    Cell,
    data_identity,
    levels_of,
    maps_identity,
    parts_of,
    split_of,
    train_identity,
)
from .shared_stages import Shelf


@cache
def judging_code() -> str:
    """The digest of what judges, when this was first asked (fingerprint.loaded_code)."""
    return modules_digest(sorted((Path(__file__).parents[1] / "evaluation").rglob("*.py")))


@dataclass(frozen=True)
class Keys:
    """The identities of a cell's stages, each holding those before it."""

    train: Mapping[str, Any]
    maps: Mapping[str, Mapping[str, Any]]
    record: Mapping[str, Any]


def keys(cell: Cell, dataset: Dataset, run: Run) -> Keys:
    cls = cell.method.load()
    dtype = str(run.dtype).removeprefix("torch.")
    train = plain(train_identity(cell, dataset, cls, loaded_code(cls), dtype))
    maps = {part: plain(maps_identity(cell, dataset, cls, train, part)) for part in parts_of(cell)}
    record = {"maps": maps, "protocol": cell.protocol.as_dict(), "code": judging_code()}
    return Keys(train, maps, plain(record))


def run_cell(
    cell: Cell, dataset: Dataset, store: Store, run: Run, tell: Tell, pictures: Path
) -> dict[str, Any]:
    """The cell's record. Raises whatever a stage raises; what is whole by then stays stored."""
    ids = keys(cell, dataset, run)
    cls = cell.method.load()
    keep = store.resume("checkpoint", ids.train)
    with calling(run.team) as call:

        def train(path: Path) -> dict[str, Any]:
            call()
            return fit(path, cell, dataset, run, keep, tell, partial(Shelf, store, ids.train))

        weights = store.once("checkpoint", ids.train, train, name="weights.safetensors")
    keep.clear()
    tell("checkpoint", {"fresh": weights.fresh, "key": weights.key})
    maps = _looked(cell, dataset, store, run, tell, ids, weights)
    judged = store.once(
        "record",
        ids.record,
        lambda path: _judged(path, cell, dataset, cls, maps),
        name="judged.h5",
    )
    tell("judged", {"fresh": judged.fresh})
    result = read_record(judged.path)
    samples = pictures.parent / "samples" / f"{cell.name}.h5"
    if judged.fresh or not samples.exists():
        samples.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(samples) as path:
            path.write_bytes(judged.path.read_bytes())
    rows, level = read(judged.path), result["level"]["chosen"]
    picture = pictures / f"{cell.name}.png"
    if maps["test"].fresh or judged.fresh or not picture.exists():
        split = split_of(dataset, "test", cell.limit)
        show(cell, split, maps["test"].path, level, rows, picture)
    return {
        **headline(cell, dataset, cls, "ok"),
        **result,
        "samples": rows.told(),
        "cost": _cost(weights, maps),
        "keys": {
            "checkpoint": weights.key,
            **{f"stage/{name}": key for name, key in weights.meta.get("stages", {}).items()},
            **{f"maps/{part}": artefact.key for part, artefact in maps.items()},
            "record": judged.key,
        },
        "versions": weights.meta["versions"],
        "device": weights.meta["device"],
        "threads": weights.meta["threads"],
    }


def _looked(
    cell: Cell,
    dataset: Dataset,
    store: Store,
    run: Run,
    tell: Tell,
    ids: Keys,
    weights: Artefact,
) -> dict[str, Artefact]:
    """Maps of every split, from the store or made now; the method is built only if one is not."""
    method: Method | None = None
    maps: dict[str, Artefact] = {}
    for part in parts_of(cell):
        keep = store.resume("maps", ids.maps[part])

        def make(path: Path, part: str = part, keep: Any = keep) -> Mapping[str, Any]:
            nonlocal method
            if method is None:
                method = recall(cell, dataset.spec, weights.path, run)
            return look(path, cell, method, dataset, part, run, keep, tell)

        maps[part] = store.once("maps", ids.maps[part], make, name="maps.h5")
        keep.clear()
        tell("maps", {"part": part, "fresh": maps[part].fresh})
    return maps


def help_look(cell: Cell, dataset: Dataset, store: Store, run: Run, tell: Tell, share: int) -> int:
    """Look along with the process that works on a cell; how many samples were looked at.

    share: from 1, the helper's own: where it begins, so that helpers do not do the same
    """
    ids = keys(cell, dataset, run)
    weights = store.find("checkpoint", ids.train)
    if weights is None:
        return 0
    method, count = recall(cell, dataset.spec, weights.path, run), 0
    for part in reversed(parts_of(cell)):
        keep = store.resume("maps", ids.maps[part])
        made = store.folder("maps", key_of(ids.maps[part]))
        count += look_along(cell, method, dataset, part, run, keep, tell, made.is_dir, share)
    return count


def _judged(
    path: Path, cell: Cell, dataset: Dataset, cls: type[Method], maps: Mapping[str, Artefact]
) -> Mapping[str, Any]:
    splits = {
        part: seen(split_of(dataset, part, cell.limit), artefact.path)
        for part, artefact in maps.items()
    }
    held_out, val, test = (splits[part] for part in PARTS)
    pseudo = beside(held_out, splits["pseudo"]) if "pseudo" in splits else None
    levels = levels_of(cell, cls)
    write(path, *judge(held_out, val, test, levels, cls.published, cell.protocol, pseudo))
    return {}


def headline(
    cell: Cell, dataset: Dataset | None, cls: type[Method] | None, status: str, reason: str = ""
) -> dict[str, Any]:
    """What every record says, whatever became of the cell."""
    fingerprint = ""
    if dataset is not None and status == "ok":
        text = canonical_json(data_identity(dataset, cell, PARTS))
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {
        "schema": 1,
        "status": status,
        "reason": reason or None,
        "method": {
            "name": cell.method.name,
            "label": cell.method.label,
            "supervision": cls.supervision if cls else None,
            "baseline": cell.method.baseline,
            "args": dict(cell.method_args),
            "paper": cell.method.paper,
        },
        "dataset": {
            "name": cell.dataset.name,
            "args": _identity_args(cell, dataset),
            "fingerprint": fingerprint,
            "synthetic": bool(dataset is not None and dataset.synthetic),
        },
        "profile": cell.profile,
        "seed": cell.seed,
        "partial": cell.limit,
        "protocol": {
            **cell.protocol.as_dict(),
            "id": cell.protocol.id,
            "text": cell.protocol.describe(),
        },
    }


def seen(split: Any, path: Path) -> Seen:
    """A split as a method saw it, tiles put together: the truth beside what was stored. Maps stay
    on disk."""
    samples = truths(split)
    file = h5py.File(path, "r", locking=False)  # artefacts do not change
    wholes = Wholes(samples)
    score = array(file, "score") if samples else np.zeros((len(array(file, "levels")), 0))
    maps = stored(file, "map") if "map" in file else None
    label = np.array([s.label for s in samples], dtype=bool)
    return Seen(
        keys=wholes.keys,
        groups=wholes.first([s.group for s in samples]),
        label=wholes.most(label) if samples else label,
        mask=_whole(wholes, [s.mask for s in samples]),
        roi=_whole(wholes, [s.roi for s in samples]),
        spacing=samples[0].spacing if samples else None,
        tags=wholes.first([dict(s.tags) for s in samples]),
        score=wholes.most(score) if wholes.tiled else score,
        map=Stitched(maps, wholes) if maps is not None and wholes.tiled else maps,
        **{name: wholes.mean(array(file, name)) for name in ("psnr", "ssim") if name in file},
    )


def _cost(weights: Artefact, maps: Mapping[str, Artefact]) -> dict[str, float]:
    """Evaluations and FLOPs per test image are of one level; seconds too, measured."""
    trained, looked = weights.meta, maps["test"].meta
    evaluations = looked["evaluations"] / looked["levels"]
    peaks = [trained["peak_memory_mb"], looked["peak_memory_mb"]]
    return {
        "train_steps": trained["train_steps"],
        "train_samples": trained["train_samples"],
        "train_gflops": trained["train_gflops"],
        "parameters": trained["parameters"],
        "evaluations_per_image": evaluations,
        "gflops_per_image": evaluations * trained["gflops_per_evaluation"],
        "train_seconds": trained["train_seconds"],
        "seconds_per_image": looked["seconds"] / looked["levels"],
        "peak_memory_mb": max(peaks),
    }


def _whole(wholes: Wholes, tensors: list[Tensor | None]) -> np.ndarray | None:
    """(W, *S), or None where any is missing."""
    parts = [t.numpy() for t in tensors if t is not None]
    if not parts or len(parts) < len(tensors):
        return None
    members = enumerate(wholes.members)
    return np.stack([wholes.join(whole, [parts[i] for i in mine]) for whole, mine in members])


def _identity_args(cell: Cell, dataset: Dataset | None) -> dict[str, Any]:
    hidden = dataset.circumstances if dataset is not None else {"root"}
    return {k: v for k, v in cell.dataset_args.items() if k not in hidden}
