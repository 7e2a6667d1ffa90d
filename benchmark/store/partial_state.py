"""Half-finished work that survives a kill: named states of tensors in a folder."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

from ...datasets.io.fsync import fsync_path
from .atomic_files import atomic_write, describe_write_errors, file_sha256
from .cache_key import canonical_json

if TYPE_CHECKING:
    from torch import Tensor


class StoreWarning(UserWarning):
    """Something stored was damaged; it was set aside, and is made anew when it is needed."""


class PartialState:
    """A Keep (engine/run.py) in a folder: named states of tensors, each replaced as a whole.

    A state is a safetensors file under a new name, and a small file that points to it and is
    replaced last, so that there is always a whole state, the new or the old. Of two processes that
    save under one name, one has the last word, and both leave a whole state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: str) -> bool:
        """Whether a state was saved under this name, be it whole or not."""
        return self._pointer(name).is_file()

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        """The state saved last under this name; a damaged one counts as none, with a warning."""
        from safetensors.torch import load_file

        pointer = self._pointer(name)
        if not pointer.is_file():
            return None
        if reason := find_damage(pointer):
            warnings.warn(f"cannot go on from {pointer}: {reason}", StoreWarning, stacklevel=2)
            return None
        return load_file(self.folder / json.loads(pointer.read_bytes())["file"])

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save_file

        pointer = self._pointer(name)
        path = self.folder / f"{pointer.stem}.{uuid4().hex[:8]}.safetensors"
        try:
            with describe_write_errors(path):
                self.folder.mkdir(parents=True, exist_ok=True)
                save_file(_separate_tensors(state), path)
                fsync_path(path)
            atomic_write(pointer, canonical_json({"file": path.name, "sha256": file_sha256(path)}))
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        if _target_file(pointer) != path:
            return  # another process has saved since
        if not path.is_file():  # another has saved before, and swept it away
            return self.save(name, state)
        for old in self.folder.glob(f"{pointer.stem}.*.safetensors"):
            if old != path:
                old.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pointer(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='').replace('.', '%2E')}.json"


def _target_file(pointer: Path) -> Path | None:
    """The file that a pointer names, in its own folder."""
    try:
        name = json.loads(pointer.read_bytes())["file"]
        return pointer.with_name(name)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_damage(pointer: Path) -> str:
    """What is wrong with the state that a pointer names; empty if it is whole."""
    try:
        told = json.loads(pointer.read_bytes())
        if told["file"] != Path(told["file"]).name:
            return "it points out of its folder"
        fits = file_sha256(pointer.with_name(told["file"])) == told["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if fits else "its checksum does not fit"


def _separate_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, no two sharing memory."""
    made: dict[str, Tensor] = {}
    taken: set[int] = set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        made[key] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return made
