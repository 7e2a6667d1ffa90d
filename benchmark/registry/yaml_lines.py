"""Read YAML with the line of every key; a key that is there twice is an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class LinedMapping(dict[Any, Any]):
    """A mapping that was read from a file.

    lines: the line of each key, from 1 on

    >>> load_lined("first: {second: 2}")["first"].lines
    {'second': 1}
    """

    lines: dict[Any, int]


class DuplicateKey(ValueError):
    """A key is in one mapping twice; the message names it and both lines.

    >>> load_lined("{steps: 1, steps: 2}")
    Traceback (most recent call last):
    adbench...DuplicateKey: 'steps' is there twice (lines 1 and 1)
    """


class YAMLFileError(ValueError):
    """A file cannot be read as YAML; the message names it, and the line where that is known."""


def read_yaml_file(path: Path, name: str = "", *, own: bool = False) -> Any:
    """Return what a YAML file holds, its mappings as LinedMapping.

    path: of the file
    name: what errors call it; its path if empty
    own: as for `load_lined`

    Raises YAMLFileError on a file that cannot be read, is no YAML, is nested too deeply, or has a
    key twice in one mapping.

    >>> _ = Path("twice.yaml").write_text("steps: 1\\nsteps: 2\\n")
    >>> read_yaml_file(Path("twice.yaml"))
    Traceback (most recent call last):
    adbench...YAMLFileError: twice.yaml: 'steps' is there twice (lines 1 and 2)
    """
    name = name or str(path)
    try:
        return load_lined(path.read_text(encoding="utf-8"), own=own)
    except OSError as error:
        raise YAMLFileError(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise YAMLFileError(f"{name} cannot be read: no text in UTF-8: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise YAMLFileError(f"{name}{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise YAMLFileError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except DuplicateKey as error:
        raise YAMLFileError(f"{name}: {error}") from error
    except ValueError as error:  # of a number or a date that is none
        raise YAMLFileError(f"{name}: not YAML: {str(error)[:200]}") from error
    except RecursionError:
        raise YAMLFileError(f"{name}: mappings and lists are nested too deeply") from None


def load_lined(text: str, *, own: bool = False) -> Any:
    """Return what a YAML text holds, its mappings as LinedMapping.

    own: it is a text of adbench, parsed by libyaml where there is one: six times faster, but
        libyaml ends the process where lists are nested ten thousand deep

    Raises yaml.YAMLError on a text that is no YAML, and DuplicateKey.

    >>> load_lined("a: {b: 1}").lines
    {'a': 1}
    >>> load_lined("{levels: 10:50:10, seed: -3, mask: 0x1f, day: 010, lr: 1.5e-4}")
    {'levels': '10:50:10', 'seed': -3, 'mask': 31, 'day': '010', 'lr': 0.00015}
    """
    return yaml.load(text, _OwnLoader if own else _Loader)


def copy_lined(value: Any) -> Any:
    """Return what was read anew, as another caller may change it: mappings and lists are copies.

    >>> first = load_lined("a: {b: [1]}")
    >>> second = copy_lined(first)
    >>> second["a"]["b"].append(2)
    >>> first, second["a"].lines
    ({'a': {'b': [1]}}, {'b': 1})
    """
    if isinstance(value, LinedMapping):
        mapping = LinedMapping({key: copy_lined(item) for key, item in value.items()})
        mapping.lines = value.lines
        return mapping
    return [copy_lined(item) for item in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader, which constructs plain values only, with lines."""


_FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _OwnLoader(_FastLoader):
    """The same, parsed by libyaml."""


def _construct(loader: Any, node: yaml.MappingNode) -> LinedMapping:
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        try:
            if key in lines:
                raise DuplicateKey(f"{key!r} is there twice (lines {lines[key]} and {line})")
            lines[key] = line
        except TypeError:  # a list as a key, which the construction below reports
            continue
    mapping = LinedMapping(loader.construct_mapping(node, deep=True))
    mapping.lines = {key: lines.get(key, node.start_mark.line + 1) for key in mapping}
    return mapping


INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"

for _loader in (_Loader, _OwnLoader):
    _loader.add_constructor("tag:yaml.org,2002:map", _construct)
    # YAML 1.1 reads 10:50:10 in base 60 and 010 in base 8. Here the one is a range of levels, and
    # the other a text, which settings take for ten, as in YAML 1.2.
    _loader.yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] not in (INTEGER, FLOAT)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _loader.add_implicit_resolver(
        INTEGER,
        re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|(0|[1-9][0-9_]*))$"),
        list("-+0123456789"),
    )
    _loader.add_implicit_resolver(
        FLOAT,
        re.compile(
            r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$"
            r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
        ),
        list("-+0123456789."),
    )
