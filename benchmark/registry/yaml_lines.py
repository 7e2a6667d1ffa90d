"""Read YAML with the line of every key; a key that is there twice is an error."""

from __future__ import annotations

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


def load_lined(text: str) -> Any:
    """Return what a YAML text holds, its mappings as LinedMapping.

    Raises yaml.YAMLError on a text that is no YAML, and DuplicateKey.

    >>> load_lined("a: {b: 1}").lines
    {'a': 1}
    """
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader, which constructs plain values only, with lines."""


def _construct(loader: _Loader, node: yaml.MappingNode) -> LinedMapping:
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


_Loader.add_constructor("tag:yaml.org,2002:map", _construct)
