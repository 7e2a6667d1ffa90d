"""What README and docs show: tutorials run as they stand, and every other command parses."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.registry.registry import Registry

from ..support.command_lines import Block, blocks, check_names, command_lines, parse

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("[!i]*.md"))
RUNNING = [ROOT / "README.md", *TUTORIALS, DOCS / "engine.md"]
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *TUTORIALS]


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in their order, in an empty folder; `tiny`, a minute a method, becomes `check`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADBENCH_STORE", str(tmp_path / ".store"))
    monkeypatch.setattr("adbench.benchmark.registry.registry._registered", {})
    script = ModuleType("__main__")  # its classes are looked up there
    monkeypatch.setitem(sys.modules, "__main__", script)
    for block in blocks(page):
        if block.language == "python":
            run_python(block, script, tmp_path / f"{page.stem}_{block.line}.py")
        elif block.language == "bash":
            run_lines(block, page)


def run_python(block: Block, script: ModuleType, path: Path) -> None:
    path.write_text(block.text, "utf-8")  # the source of a class is asked for
    script.__file__ = str(path)
    exec(compile(block.text, path, "exec"), vars(script))


def run_lines(block: Block, page: Path) -> None:
    for line in block.text.replace("--profile tiny", "--profile check").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "adbench":
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, (page.name, block.line, line, result.output)
        elif words:
            subprocess.run(["bash", "-ec", line], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_parses(page: Path) -> None:
    """Names of methods, datasets, profiles and settings are real ones, too."""
    registry = Registry.read()
    for block in blocks(page):
        if block.language in ("bash", "shell"):
            for words in command_lines(block.text):
                command, values = parse(words)
                if "--registry" not in words:
                    check_names(command, values, registry)


def test_every_tutorial_is_listed_and_runs_something() -> None:
    index = (DOCS / "tutorials" / "index.md").read_text("utf-8")
    for page in TUTORIALS:
        assert page.stem in index
        assert any(block.language == "bash" for block in blocks(page)), page.name
