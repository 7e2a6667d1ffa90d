"""Files of two cases that are the same to the byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from ..splits.assignment import Case


def find_copies(
    cases: Iterable[Case],
    digests: Mapping[Path, str],
    split_of: Mapping[str, str],
    roles: Collection[str],
    *,
    across_splits: bool = False,
) -> tuple[list[str], list[str]]:
    """Return byte-identical files of two cases: problems across splits, notes within one.

    cases: read twice
    digests: of the contents of their files
    split_of: the split of a case by its name; cases without one are passed over
    roles: whose files no two cases may share
    across_splits: whether copies in two splits are notes, too

    >>> from pathlib import Path
    >>> from adbench.datasets.preparation.copied_files import find_copies
    >>> from adbench.datasets.splits.assignment import Case
    >>> paths = [Path("a.png"), Path("b.png")]
    >>> cases = [Case(path.stem, path.stem, {"image": path}) for path in paths]
    >>> digests = dict.fromkeys(paths, "91aa")
    >>> find_copies(cases, digests, {"a": "train", "b": "test"}, ["image"])
    (['b: b.png is a copy of a: a.png (train and test)'], [])
    """
    seen, repeated = set[bytes](), set[bytes]()
    for _, _, digest in _unique_files(cases, digests, split_of, roles):
        (repeated if digest in seen else seen).add(digest)
    del seen
    owners: dict[bytes, list[tuple[Case, Path]]] = defaultdict(list)
    for case, path, digest in _unique_files(cases, digests, split_of, roles) if repeated else ():
        if digest in repeated:
            owners[digest].append((case, path))
    problems, notes = [], []
    for copies in owners.values():
        (first, path), *later_copies = copies
        for case, other_path in later_copies:
            if other_path == path:
                continue
            finding = f"{case.name}: {other_path.name} is a copy of {first.name}: {path.name}"
            in_two_splits = split_of[case.name] != split_of[first.name]
            splits_text = (
                f" ({split_of[first.name]} and {split_of[case.name]})" if in_two_splits else ""
            )
            (problems if in_two_splits and not across_splits else notes).append(
                finding + splits_text
            )
    return problems, notes


def _unique_files(
    cases: Iterable[Case],
    digests: Mapping[Path, str],
    split_of: Mapping[str, str],
    roles: Collection[str],
) -> Iterator[tuple[Case, Path, bytes]]:
    """Yield the files that no two cases may share, with what tells their contents apart."""
    for case in cases:
        for role, path in case.files.items():
            if role in roles and case.name in split_of:
                yield case, path, digests[path].encode()
