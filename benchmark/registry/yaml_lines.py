"""Read YAML with the line of every key; a key that is there twice is an error."""

from __future__ import annotations

import re
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
    >>> load_lined("{levels: 10:50:10, seed: -3, mask: 0x1f}")
    {'levels': '10:50:10', 'seed': -3, 'mask': 31}
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


INTEGER = "tag:yaml.org,2002:int"

_Loader.add_constructor("tag:yaml.org,2002:map", _construct)
# YAML 1.1 reads 10:50:10 as a number in base 60; here it is a range of levels, as in YAML 1.2.
_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != INTEGER]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    INTEGER,
    re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|(0|[1-9][0-9_]*))$"),
    list("-+0123456789"),
)
