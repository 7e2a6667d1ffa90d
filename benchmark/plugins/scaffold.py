"""Create a plugin: a package with one working method that passes `adbench check`."""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path
from uuid import uuid4

TEMPLATES = {
    "{module}.py": "new_method.py.j2",
    "pyproject.toml": "new_pyproject.toml.j2",
    "registry.yaml": "new_registry.yaml.j2",
    "README.md": "new_readme.md.j2",
    "test_{module}.py": "new_test.py.j2",
}


class ScaffoldError(ValueError):
    """A name or folder that a new plugin cannot have.

    >>> create_plugin("Capital", Path("capital"), set())
    Traceback (most recent call last):
    adbench...ScaffoldError: a method's name is made of a-z, 0-9 and -, ...
    """


def create_plugin(name: str, folder: Path, taken_names: set[str]) -> list[Path]:
    """Write a plugin's files into a folder and return their paths.

    name: of the method, of a-z, 0-9 and -
    folder: a new or empty one
    taken_names: names of registered methods

    Raises ScaffoldError on such a name, a folder with files, or one that cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in create_plugin("my-method", Path(folder, "plugin"), {"dae"})]
    ['my_method.py', 'pyproject.toml', 'registry.yaml', 'README.md', 'test_my_method.py']
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise ScaffoldError(
            f"a method's name is made of a-z, 0-9 and -, and starts with a-z: {name!r}"
        )
    if name in taken_names:
        raise ScaffoldError(f"{name!r} is taken (adbench info {name}); choose another name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ScaffoldError(f"{folder} is there already; name another with --out")
    title = name.replace("-", " ").title()
    facts = {"name": name, "module": module, "title": title, "cls": title.replace(" ", "")}
    loader = FileSystemLoader(Path(__file__).parent)
    pages = Environment(
        loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    part = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        part.mkdir(parents=True)
        for target, source in TEMPLATES.items():
            text = pages.get_template(source).render(facts)
            (part / target.format(module=module)).write_text(text)
        if folder.exists():
            folder.rmdir()
        part.replace(folder)
    except OSError as error:
        raise ScaffoldError(
            f"cannot write {folder}: {error.strerror}; name another with --out"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return [folder / target.format(module=module) for target in TEMPLATES]
