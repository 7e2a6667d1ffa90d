"""The state of unfinished work, which survives a kill: named dicts of tensors in a folder."""

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
from .artifact import UNREADABLE
from .atomic_files import ANOTHER_STORE, atomic_write, describe_write_errors, file_sha256
from .cache_key import canonical_json

if TYPE_CHECKING:
    from torch import Tensor


class StoreWarning(UserWarning):
    """Stored data was damaged; it was moved away and is created again when it is needed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as notes:
    ...     warnings.simplefilter("always")
    ...     _ = Path(folder, "train.json").write_text("{}")
    ...     state = PartialState(Path(folder)).load("train")
    >>> state is None, [note.category.__name__ for note in notes]
    (True, ['StoreWarning'])
    """


class PartialState:
    """A StateStore (engine.runtime) in a folder: named dicts of tensors, each replaced atomically.

    A state is a safetensors file under a new name, and a small JSON file that points to it and is
    replaced last, so that there is always a complete state, the new or the old one. If two
    processes save under one name, the last one wins, and both leave a complete state.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.partial_state import PartialState
    >>> "train" in PartialState(Path("/no/such/folder"))
    False
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: str) -> bool:
        """Whether a state was saved under this name, damaged or not."""
        return self._pointer(name).is_file()

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        """Return the state saved last under this name; None, with a warning, if it is damaged."""
        from safetensors.torch import load_file

        pointer = self._pointer(name)
        if not pointer.is_file():
            return None
        if reason := find_damage(pointer):
            warnings.warn(f"cannot continue from {pointer}: {reason}", StoreWarning, stacklevel=2)
            return None
        return load_file(self.folder / json.loads(pointer.read_bytes())["file"])

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Replace the state of this name. Raises StoreError if it cannot be written."""
        from safetensors.torch import save_file

        pointer = self._pointer(name)
        path = self.folder / f"{pointer.stem}.{uuid4().hex[:8]}.safetensors"
        try:
            with describe_write_errors(path, elsewhere=ANOTHER_STORE):
                self.folder.mkdir(parents=True, exist_ok=True)
                save_file(separate_tensors(state), path)
                fsync_path(path)
            atomic_write(
                pointer,
                canonical_json({"file": path.name, "sha256": file_sha256(path)}),
                elsewhere=ANOTHER_STORE,
            )
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        if _target_file(pointer) != path:
            return  # another process saved later
        if not path.is_file():  # another process saved earlier, and removed it as outdated
            return self.save(name, state)
        for old in self.folder.glob(f"{pointer.stem}.*.safetensors"):
            if old != path:
                old.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all states."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pointer(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='').replace('.', '%2E')}.json"


def _target_file(pointer: Path) -> Path | None:
    """The file that a pointer names, in its own folder."""
    try:
        name = json.loads(pointer.read_bytes())["file"]
        return pointer.with_name(name)
    except UNREADABLE:
        return None


def find_damage(pointer: Path) -> str:
    """Return what is wrong with the state that a pointer file names; empty if it is complete.

    >>> from pathlib import Path
    >>> from adbench.benchmark.store.partial_state import find_damage
    >>> find_damage(Path("/no/such/train.json")).partition(":")[0]
    'FileNotFoundError'
    """
    try:
        fields = json.loads(pointer.read_bytes())
        if fields["file"] != Path(fields["file"]).name:
            return "it points out of its folder"
        matches = file_sha256(pointer.with_name(fields["file"])) == fields["sha256"]
    except UNREADABLE as error:
        return f"{type(error).__name__}: {error}"
    return "" if matches else "its checksum does not match"


def separate_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors takes them: on the CPU, contiguous, no two sharing memory.

    >>> import torch
    >>> from adbench.benchmark.store.partial_state import separate_tensors
    >>> weight = torch.ones(2)
    >>> separate = separate_tensors({"a": weight, "tied": weight})
    >>> separate["a"].data_ptr() == separate["tied"].data_ptr()
    False
    """
    separate: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        separate[key] = tensor.clone() if address in addresses else tensor
        addresses.add(address)
    return separate
