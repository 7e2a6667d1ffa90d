"""What a class's results depend on in code: a digest of every module that it can reach.

A module counts by its normalised syntax tree, so comments, docstrings and layout do not. Reached
is what static imports lead to, wherever in a file they stand, from the modules of the class and of
its bases, as long as it belongs to adbench or to the plugin's own package or folder. Files are
found by path: nothing is imported for this.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from .imports import FOLDER_PACKAGE_PREFIX


@dataclass(frozen=True)
class Fingerprint:
    """The digest of the code that a class depends on.

    digest: of all modules together, 64 hexadecimal digits
    modules: each module's own digest, by name, to tell which of them has changed

    >>> Fingerprint("ab12", {"adbench.methods.dae": "cd34"}).modules.keys()
    dict_keys(['adbench.methods.dae'])
    """

    digest: str
    modules: dict[str, str]


@dataclass(frozen=True)
class CodeFolder:
    """A folder whose files count. They are imported as `package`.…, or bare if that is empty.

    It may be a single file, of a module that stands alone.

    adbench's own root __init__ does not count: it names the public API lazily, and no result
    depends on it.

    >>> CodeFolder("adbench", Path("/src")).module_name(Path("/src/methods/dae.py"))
    'adbench.methods.dae'
    """

    package: str
    folder: Path

    def module_name(self, path: Path) -> str:
        """Return the dotted name under which a file of the folder is imported."""
        inner = "/".join(path.relative_to(self.folder).parts).removesuffix(".py")
        return ".".join(part for part in (self.package, *inner.split("/")) if part)

    def module_files(self, parts: tuple[str, ...]) -> Iterator[Path]:
        """What importing folder/part/part/… would run: the packages on the way, and the module."""
        for depth in range(len(parts) + 1):
            stem = self.folder.joinpath(*parts[:depth])
            counts = depth or self.package not in ("", "adbench")  # adbench's own names the API
            paths = [stem / "__init__.py"] if counts else []
            if depth:
                paths.append(stem.with_name(stem.name + ".py"))
            yield from (path for path in paths if path.is_file())


ADBENCH_FOLDER = CodeFolder("adbench", Path(__file__).absolute().parents[2])


def code_fingerprint(cls: type) -> Fingerprint:
    """Return the fingerprint of a method's or dataset's class, from its files as they are now.

    >>> from adbench.methods.template_z import TemplateZ
    >>> [name for name in code_fingerprint(TemplateZ).modules if "methods" in name]
    ['adbench.methods.__init__', 'adbench.methods.base', 'adbench.methods.template_z']
    """
    bases = [base for base in cls.__mro__ if _is_fingerprinted(base, cls)]
    starts = [_locate_class(base) for base in bases if _has_file(base)]
    homes = list(dict.fromkeys([ADBENCH_FOLDER, *(home for home, _ in starts)]))
    queue = [*starts]
    digests = {
        f"{base.__module__}.{base.__qualname__}": _source_digest(base)
        for base in bases
        if not _has_file(base)
    }
    while queue:
        home, path = queue.pop()
        name = home.module_name(path)
        if name not in digests:
            digests[name], imports = _parse_file(path)
            for level, dotted in imports:
                queue += _resolve_import(home, path, level, dotted, homes)
    modules = dict(sorted(digests.items()))
    return Fingerprint(_hash(repr(modules)), modules)


@cache
def loaded_code_digest(cls: type) -> str:
    """Return the digest of a class's code as it was at the first call of this process.

    The class that is loaded does not change when somebody edits its file in the middle of a run, so
    the keys of its results do not change either.

    >>> from adbench.methods.template_z import TemplateZ
    >>> loaded_code_digest(TemplateZ) == code_fingerprint(TemplateZ).digest
    True
    """
    return code_fingerprint(cls).digest


def folder_digest(folder: Path) -> str:
    """Return one digest of all Python files in a folder and its sub-folders, by relative path.

    Other files that they import do not count; neither do comments, docstrings and layout.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "window.py")
    ...     digests = [
    ...         folder_digest(Path(folder))
    ...         for code in ("size = 1", "size = 1  # pixel", "size = 2")
    ...         if file.write_text(code)
    ...     ]
    >>> digests[0] == digests[1], digests[0] == digests[2]
    (True, False)
    """
    paths = sorted(folder.rglob("*.py"))
    digests = {path.relative_to(folder).as_posix(): _parse_file(path)[0] for path in paths}
    return _hash(repr(digests))


def _is_fingerprinted(base: type, cls: type) -> bool:
    """The class itself, and those of its bases that derive from adbench's: not torch's."""
    return base is cls or any(b.__module__.startswith("adbench.") for b in base.__mro__)


def _has_file(cls: type) -> bool:
    """False for a class that was typed into a notebook."""
    return hasattr(sys.modules.get(cls.__module__), "__file__")


def _source_digest(cls: type) -> str:
    """A digest of a class without a file: of its attributes and its functions' source, not of what
    they call."""
    functions = {k: v for k, v in vars(cls).items() if inspect.isfunction(v)}
    plain = {k: repr(v) for k, v in vars(cls).items() if not k.startswith("_") and not callable(v)}
    sources = [(name, inspect.getsource(function)) for name, function in functions.items()]
    return _hash(repr((sorted(sources), sorted(plain.items()))))


def _locate_class(cls: type) -> tuple[CodeFolder, Path]:
    """Where a class stands: its file, and the folder whose other files it may lean on."""
    path = Path(inspect.getfile(cls)).absolute()
    package, *rest = cls.__module__.split(".")
    inside = [*rest, "__init__"] if path.stem == "__init__" else rest
    fits = list(path.with_suffix("").parts[-len(inside) :]) == inside
    if inside and fits and not package.startswith(FOLDER_PACKAGE_PREFIX):
        return CodeFolder(package, path.parents[len(inside) - 1]), path
    if path.parent.name in ("site-packages", "dist-packages"):
        return CodeFolder(package, path), path  # its neighbours are strangers
    return CodeFolder("", path.parent), path


def _resolve_import(
    home: CodeFolder, path: Path, level: int, dotted: tuple[str, ...], homes: list[CodeFolder]
) -> Iterator[tuple[CodeFolder, Path]]:
    """The files that one import leads to."""
    if level:
        package = path.relative_to(home.folder).parts[:-1]
        if level - 1 <= len(package):
            parts = (*package[: len(package) - level + 1], *dotted)
            yield from ((home, file) for file in home.module_files(parts))
        return
    for other in homes:
        if not other.package:
            yield from ((other, file) for file in other.module_files(dotted))
        elif dotted[0] == other.package:
            yield from ((other, file) for file in other.module_files(dotted[1:]))


Imports = tuple[tuple[int, tuple[str, ...]], ...]
"""(level, dotted name) of each import; level 0 is absolute, 1 is `from .`."""


def _parse_file(path: Path) -> tuple[str, Imports]:
    stat = path.stat()
    return _parse_file_version(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _parse_file_version(path: Path, mtime: int, size: int) -> tuple[str, Imports]:
    """A file's digest and its imports; kept as long as its time and size stay."""
    source = path.read_bytes()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return _hash(repr(source)), ()
    return _hash(_normalised_text(tree)), tuple(_imports(tree))


def _imports(tree: ast.Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every import, wherever it stands; statements alone are visited, not what they compute."""
    statements: list[ast.AST] = [*tree.body]
    while statements:
        node = statements.pop()
        if isinstance(node, ast.Import):
            yield from ((0, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            yield from ((node.level, (*base, alias.name)) for alias in node.names)
        else:
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                inner = getattr(node, block, None)
                statements += inner if isinstance(inner, list) else ()


def _normalised_text(node: Any) -> str:
    """A syntax tree as the text of nested tuples, without positions, docstrings or empty fields.

    `ast.dump` would do, but what it prints changes with Python's version. The text is that of
    Python's `repr`; to make the tuples first took half as long again.
    """
    if isinstance(node, list):
        return _tuple_text([_normalised_text(item) for item in node if not _is_docstring(item)])
    if not isinstance(node, ast.AST):
        return repr(repr(node))
    parts, values = [repr(type(node).__name__)], node.__dict__
    for name in node._fields:
        value = values.get(name)
        if value is not None and name != "kind":
            text = _normalised_text(value)
            if text != "()":
                parts.append(f"({name!r}, {text})")
    return _tuple_text(parts)


def _tuple_text(parts: Sequence[str]) -> str:
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _is_docstring(node: Any) -> bool:
    """A string that stands alone: a docstring, of whatever."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]
