"""Draws the packages of adbench and what they import: `make picture`.

Every package is a box, an import an arrow down; an arrow that longer ways imply is left out. A row
holds packages that know nothing of each other; it is as high as the longest chain of imports below
it. The graph is read from the syntax trees of the source: nothing of adbench is imported.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).parents[1]
COLOURS = {"engine": "#cfe3f5", "datasets": "#d7ecd3", "methods": "#f6e3c0", "benchmark": "#e6d9f0"}


def package_of(path: Path) -> str:
    """The package of a file: its folder; methods/ and datasets/ hold plugins and a base."""
    parts = path.relative_to(ROOT).parts
    if len(parts) == 2 and parts[0] in ("methods", "datasets"):
        return f"{parts[0]}.base" if path.stem == "base" else parts[0]
    return ".".join(parts[:2]) if len(parts) > 2 else parts[0]


def imports() -> dict[str, set[str]]:
    """For every package, the packages that its files import."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for top in COLOURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            package = package_of(path)
            arrows[package] |= set()
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.ImportFrom) or not node.level:
                    continue
                folder = path.parents[node.level - 1]
                stem = folder.joinpath(*(node.module or "").split("."))
                for place in [stem, *(stem / alias.name for alias in node.names)]:
                    for file in (place.with_suffix(".py"), place / "__init__.py"):
                        if file.is_file() and package_of(file) not in (package, "benchmark"):
                            arrows[package].add(package_of(file))
    return {package: targets for package, targets in arrows.items() if package != "benchmark"}


def rows(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Packages by the longest chain of imports below them, the lowest first."""
    depth: dict[str, int] = {}

    def below(package: str) -> int:
        if package not in depth:
            depth[package] = 1 + max((below(t) for t in arrows[package]), default=-1)
        return depth[package]

    deepest = max(below(package) for package in arrows)
    return [sorted(p for p in arrows if depth[p] == level) for level in range(deepest + 1)]


def reduced(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no longer way implies (transitive reduction)."""

    def reach(package: str) -> set[str]:
        return set().union(*({t} | reach(t) for t in arrows[package]))

    return {
        package: targets - set().union(*(reach(target) for target in targets))
        for package, targets in arrows.items()
    }


def draw(path: Path) -> None:
    """Write the picture as SVG, the same bytes for the same packages."""
    arrows = imports()
    levels = rows(arrows)
    arrows = reduced(arrows)
    widest = max(map(len, levels))
    figure = Figure(figsize=(2.1 * widest + 1, 0.95 * len(levels)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.5, widest + 0.5)
    axes.set_ylim(-0.5, len(levels) - 0.5)
    centre: dict[str, tuple[float, float]] = {}
    for level, packages in enumerate(levels):
        for k, package in enumerate(packages):
            centre[package] = ((k + 0.5) * widest / len(packages), float(level))
    for package, targets in arrows.items():
        for target in sorted(targets):
            axes.add_patch(
                FancyArrowPatch(
                    centre[package], centre[target], arrowstyle="-|>", mutation_scale=7,
                    shrinkA=14, shrinkB=14, linewidth=0.5, color="#88888888", zorder=1,
                )
            )  # fmt: skip
    for package, (x, y) in centre.items():
        box = FancyBboxPatch(
            (x - 0.42, y - 0.17), 0.84, 0.34, boxstyle="round,pad=0.02", linewidth=0.6,
            facecolor=COLOURS[package.split(".")[0]], edgecolor="#555555", zorder=2,
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(x, y, package.replace(".", "\n", 1), ha="center", va="center", size=7, zorder=3)
    rcParams["svg.hashsalt"] = "adbench"
    rcParams["svg.fonttype"] = "none"  # text stays text
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(ROOT / "docs/packages.svg")
