"""An SVG of matplotlib as an element of the page: the same drawing in less than half of the bytes.

matplotlib wraps each artist in groups with ids, writes six decimals and repeats every marker and
style. Coordinates are rounded to a tenth of a point; markers that are equal are defined once.

Why not scour 0.38.2: of the twelve figures of a page with three methods it leaves 0.61 of the bytes
(four digits, ids shortened, groups created), this 0.45; and it knows neither the page's colours nor
its tooltips.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from xml.etree import ElementTree

INHERITED = (
    *("fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-linecap"),
    *("stroke-linejoin", "stroke-dasharray", "stroke-dashoffset"),
    *("text-anchor", "font-weight", "font-style", "clip-path"),
)
"""Attributes that a group may have in place of each of its members."""

MIN_RUN = 3
"""Neighbours with equal attributes from which on a group is shorter."""

Element = ElementTree.Element


def compact_svg(
    svg: bytes, prefix: str, tooltips: Mapping[str, str], variables: Mapping[str, str]
) -> Element:
    """Return the root of an SVG of matplotlib without style attributes, which the page forbids.

    prefix: of its ids      tooltips: by the gid of an artist
    variables: what colours are replaced by

    >>> from adbench.benchmark.report.html.compact_svg import compact_svg
    >>> from xml.etree import ElementTree
    >>> svg = b'<svg><g id="A"><path d="M 0.123 4 L 5 6.0" style="stroke: #123456"/></g></svg>'
    >>> root = compact_svg(svg, "a", {"A": "text"}, {"#123456": "var(--ink)"})
    >>> ElementTree.tostring(root, encoding="unicode")
    '<svg><path d="M0.1 4L5 6" stroke="var(--ink)"><title>text</title></path></svg>'
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.rpartition("}")[2] in ("metadata", "style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text = (element.text or "").strip() or None
        element.tail = None
        _simplify_attributes(element, variables)
    for element in list(root.iter()):
        gid = element.get("id", "")
        if gid in tooltips:
            title = ElementTree.Element("title")
            title.text = tooltips[gid]
            element.insert(0, title)
    _share_definitions(root, prefix)
    members = [each for child in root for each in _flatten(child)]
    root[:] = _grouped(members)
    return root


def _simplify_attributes(element: Element, variables: Mapping[str, str]) -> None:
    """In place: styles as attributes, colours of the page, short numbers, no defaults."""
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for declaration in attributes.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if value and name != "font-family":
            attributes[name] = value
    attributes = {name: variables.get(value, value) for name, value in attributes.items()}
    if attributes.get("font-size") == "12px":  # that of the page's charts
        del attributes["font-size"]
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    for name in ("d", "x", "y", "transform", "width", "height", "stroke-dasharray"):
        if attributes.get(name):
            digits = 2 if element.tag == "path" and "id" in attributes else 1  # of small markers
            attributes[name] = _short_numbers(attributes[name], digits)
    if "d" in attributes:
        attributes["d"] = re.sub(r"\s*([A-Za-z])\s*", r"\1", attributes["d"]).strip()
    element.attrib.clear()
    element.attrib |= attributes


def _short_numbers(text: str, digits: int) -> str:
    def short(match: re.Match[str]) -> str:
        number = f"{float(match[0]):.{digits}f}".rstrip("0").rstrip(".")
        return "0" if number == "-0" else number

    return re.sub(r"-?\d+\.\d+(?:e[-+]?\d+)?", short, text)


def _share_definitions(root: Element, prefix: str) -> None:
    """In place: all definitions at the beginning, equal ones once; no other ids."""
    shared: dict[str, Element] = {}
    new_ids: dict[str, str] = {}
    for parent in list(root.iter()):
        for definitions in [child for child in parent if child.tag == "defs"]:
            parent.remove(definitions)
            for each in definitions:
                gid = each.attrib.pop("id", "")
                key = ElementTree.tostring(each, encoding="unicode")
                if key not in shared:
                    each.set("id", f"{prefix}{len(shared)}")
                    shared[key] = each
                new_ids[gid] = shared[key].get("id", "")
    for element in root.iter():
        element.attrib.pop("id", None)
        for name in ("href", "clip-path"):
            if old := re.search(r"#([^)]+)", element.get(name, "")):
                element.set(name, element.get(name, "").replace(old[1], new_ids[old[1]]))
    if shared:
        definitions = ElementTree.Element("defs")
        definitions.extend(shared.values())
        root.insert(0, definitions)


def _flatten(element: Element) -> Iterator[Element]:
    """What is drawn of an element, without groups that add nothing; a title goes with its only
    member."""
    if element.tag == "path" and element.get("fill") == "none" and "stroke" not in element.attrib:
        return
    if element.tag != "g":
        yield element
        return
    members = [each for child in element if child.tag != "title" for each in _flatten(child)]
    title = element.find("title")
    if title is None and not element.attrib:
        yield from members
    elif len(members) == 1 and not element.attrib and members[0].tag in ("path", "use"):
        if title is not None:
            members[0].insert(0, title)
        yield members[0]
    elif members:
        element[:] = ([title] if title is not None else []) + _grouped(members, least=2)
        yield element


def _grouped(members: list[Element], least: int = MIN_RUN) -> list[Element]:
    """The elements, neighbours with equal attributes in a group that has these."""

    def shared(element: Element) -> tuple[tuple[str, str], ...]:
        if element.tag not in ("path", "use", "text"):
            return ()
        return tuple((name, element.attrib[name]) for name in INHERITED if name in element.attrib)

    grouped: list[Element] = []
    for attributes, run in groupby(members, shared):
        neighbours = list(run)
        if not attributes or len(neighbours) < least:
            grouped += neighbours
            continue
        group = ElementTree.Element("g", dict(attributes))
        for element in neighbours:
            for name, _ in attributes:
                del element.attrib[name]
        group.extend(neighbours)
        grouped.append(group)
    return grouped
