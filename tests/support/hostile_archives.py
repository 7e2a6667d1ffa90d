"""Some seventy hostile tar files for `cache import`, and what has to become of each.

Each has to be refused in one line for every thing that is wrong, without a traceback, with nothing
outside of the store, nothing in it that does not verify, and no more memory than the artifacts.

    python tests/support/hostile_archives.py FOLDER

tries all of them and prints what went wrong.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import tarfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adbench.benchmark.store.archive import export_archive, import_archive
from adbench.benchmark.store.artifact_store import Store
from adbench.benchmark.store.atomic_files import StoreError

Members = list[tuple[tarfile.TarInfo, bytes]]
MEMORY = 100_000_000
"""Bytes that an import of a small file may take at most; most of it is tarfile's own."""


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: Any) -> Any:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(members: Sequence[Any], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as file:
        for info, data in members:
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A header by hand, with its checksum. size: 12 bytes as they stand."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = size.ljust(12, b"\0"), b"00000000000\0"
    block[148:156], block[156:157], block[257:265] = b" " * 8, kind, b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = bytes(1024)


def archives(whole: bytes) -> dict[str, bytes]:
    """All hostile files by name. whole: a sound archive, which most of them begin as."""
    with tarfile.open(fileobj=io.BytesIO(whole)) as file:
        members: Members = [(m, f.read() if (f := file.extractfile(m)) else b"") for m in file]
    first, folder = members[0][0].name, members[0][0].name.rpartition("/")[0]
    key, rest = "a" * 32, members[2:]
    meta = json.loads(members[1][1])

    def pair(name: str) -> Members:
        return [member(name), member(f"{name}.json", b"{}")]

    def described(text: bytes) -> bytes:
        return tar([members[0], member(members[1][0].name, text), *rest])

    names = (
        "../../x", "/etc/x", "maps/../x", "..", ".", "", "maps", f"maps/{key}", f"maps/{key}/",
        f"maps/{key}/x/y", f"maps/{key}/../x", f"maps/{key.upper()}/x", f"maps/{key}0/x",
        f"maps//{key}/x", f"./maps/{key}/x", f"locks/{key}/x", f"corrupt/{key}/x",
        f"resume/{key}/x", f"MAPS/{key}/x", f"maps/{key}/.x", f"maps/{key}/x\n",
        f"maps/{key}/x\x1b[2J",
        f"maps/{key}/x\udcff", f"maps/{key}/{'x' * 300}", "x" * 5000, "a/" * 2000 + "x",
        "C:\\x", "\\\\host\\x", "evil.py", "manifest.json", ".adbench-store", "usage.json",
    )  # fmt: skip
    archives = {f"named {name[:40]!r}": tar([*members, *pair(name)]) for name in names}
    kinds = {
        "symbolic link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE,
        "device": tarfile.CHRTYPE, "block device": tarfile.BLKTYPE, "folder": tarfile.DIRTYPE,
        "continuous file": tarfile.CONTTYPE, "unknown type": b"Z",
    }  # fmt: skip
    for name, kind in kinds.items():
        odd = member(first, b"", kind, linkname="/etc/hostname")
        archives[f"a {name} as payload"] = tar([odd, members[1], *rest])
        archives[f"a {name} beside"] = tar([*members, member("x", b"", kind, linkname="../../x")])
    archives |= {
        "the link of a folder, then a file in it": tar(
            [member("maps", b"", tarfile.SYMTYPE, linkname="/tmp"), *members]
        ),
        "a third file": tar([*members[:2], member(f"{folder}/evil.py"), *rest]),
        "ten thousand extra files": tar([*members, *(member(f"x{i}") for i in range(10_000))]),
        "ten thousand files in one folder": tar(
            [*members, *(member(f"maps/{key}/{i}") for i in range(10_000))]
        ),
        "one artifact twice": tar([*members, *members[:2]]),
        "a flipped byte": tar([(members[0][0], b"?" + members[0][1][1:]), members[1], *rest]),
        "a short payload": tar([member(first, members[0][1][:-1]), members[1], *rest]),
        "no metadata": tar([members[0], *rest]),
        "no payload": tar([members[1], *rest]),
        "deep JSON": described(b"[" * 200_000),
        "deep JSON objects": described(b'{"a":' * 200_000),
        "JSON infinity": described(json.dumps(meta | {"bytes": float("inf")}).encode()),
        "JSON of a huge number": described(b'{"bytes": ' + b"9" * 5000 + b"}"),
        "JSON with other types": described(json.dumps({key: [] for key in meta}).encode()),
        "JSON null": described(b"null"),
        "JSON in Latin-1": described(b'{"a": "\xff"}'),
        "JSON with a surrogate": described(b'{"bytes": "\\ud800"}'),
        "empty metadata": described(b""),
        "changed metadata": described(json.dumps(meta | {"seconds": 1e9}).encode()),
        "large metadata": described(b" " * (65 << 20)),
        "a size beyond the end": whole[:0] + header(first, b"77777777777") + b"x" * 512 + END,
        "a size in base 256": header(first, b"\x80" + b"\x7f" * 11) + END,
        "a negative size": header(first, b"\xff" * 12) + b"x" * 512 + END,
        "a size that is no number": header(first, b"zzzzzzz") + END,
        "a wrong checksum": b"x" + whole[1:],
        "a cut file": whole[: len(whole) // 2],
        "a file without an end": whole.rstrip(b"\0"),
        "three thousand long names": header("././@LongLink", b"00000000005", b"L") * 3000 + END,
        "a long name of a gigabyte": header("././@LongLink", b"10000000000", b"L") + END,
        "a pax header of a gigabyte": header("x", b"10000000000", b"x") + END,
        "a sparse file": header(first, b"00000000000", b"S") + END,
        "a sparse pax file": tar([
            member(first, b"x", pax_headers={
                "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": first,
                "GNU.sparse.size": str(10**10), "GNU.sparse.map": "0,1",
            }), members[1], *rest,
        ]),
        "a sparse map of text": tar([
            member(first, b"x", pax_headers={"GNU.sparse.map": "a,b", "GNU.sparse.size": "x"}),
            members[1], *rest,
        ]),
        "a pax size": tar([member(first, b"x", pax_headers={"size": "-5"}), members[1], *rest]),
        "a pax name of another folder": tar(
            [member(first, members[0][1], pax_headers={"path": "/tmp/x"}), members[1], *rest]
        ),
        "a gzip file": gzip.compress(whole),
        "a gzip bomb": gzip.compress(bytes(50_000_000)),
        "zeros": bytes(100_000),
        "nothing": b"",
        "text": b"no tar at all" * 100,
        "a zip file": b"PK\3\4" + struct.pack("<20s", b"x") * 100,
        "a pickle": b"\x80\x04cos\nsystem\n(S'touch /tmp/x'\ntR." + bytes(600),
    }  # fmt: skip
    return archives


def wrong_imports(folder: Path, source: Store, cases: dict[str, bytes] | None = None) -> list[str]:
    """Import every archive into a store of its own; return a line for each thing that is wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole.tar"
    export_archive(source, [(a.kind, a.key) for a in source.artifacts()], whole)
    cases = archives(whole.read_bytes()) if cases is None else cases
    allowed = {path.name for path in folder.iterdir()} | {"deep", "case.tar"}
    wrong = []
    for k, (name, data) in enumerate(cases.items()):
        path, store = folder / "case.tar", Store(folder / "deep" / f"store-{k}")
        path.write_bytes(data)
        tracemalloc.start()
        try:
            report = import_archive(store, path)
            lines = report.problems
        except StoreError as error:
            lines = [str(error)]
        except Exception as error:
            lines = []
            wrong.append(f"{name}: {type(error).__name__}: {error}"[:300])
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if memory > MEMORY + 2 * len(data):
            wrong.append(f"{name}: {memory / 1e6:.0f} MB of memory")
        if not lines:
            wrong.append(f"{name}: taken without a word")
        wrong += [f"{name}: not one plain line: {line[:200]!r}" for line in lines
                  if "\n" in line or not line.isprintable()]  # fmt: skip
        if len([*store.artifacts(verify=True)]) != len(store.folders()):
            wrong.append(f"{name}: something in the store does not verify")
        if outside := {path.name for path in folder.iterdir()} - allowed:
            wrong.append(f"{name}: wrote {sorted(outside)} outside of the store")
        if store.root.exists() and any(p.is_symlink() for p in store.root.rglob("*")):
            wrong.append(f"{name}: made a link")
    return wrong


def main() -> None:
    from stored import fill_store, training_inputs

    folder = Path(sys.argv[1])
    source = Store(folder / "source")
    fill_store(source, folder / "out", training_inputs(seed=0), "brats.anoddpm.s0")
    wrong = wrong_imports(folder / "cases", source)
    print("\n".join(wrong))
    whole = (folder / "cases/whole.tar").read_bytes()
    print(f"{len(archives(whole))} tried, {len(wrong)} wrong")


if __name__ == "__main__":
    main()
