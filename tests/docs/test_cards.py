"""Cards of methods and datasets: agreement with the authors' code, and what our boards say."""

from __future__ import annotations

import csv
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from adbench.benchmark.registry.registry import Registry

DOCS = Path(__file__).parents[2] / "docs"
BOARDS = DOCS.parent / "results" / "boards"
METHODS = Registry.read().methods


@pytest.fixture(scope="module")
def cards():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "extensions"))
        yield import_module("cards")


def test_every_figure_of_agreement_is_on_the_card_of_its_method(cards):
    agreement = yaml.safe_load((DOCS / "agreement.yaml").read_text("utf-8"))
    assert agreement.keys() <= METHODS.keys()
    for name, parts in agreement.items():
        card = cards.card(METHODS[name])
        assert "largest difference" in card and "Not measured" not in card
        for part, difference in parts.items():
            assert isinstance(difference, str), (name, part)  # 1e-6 without a dot is text in YAML
            assert f"| {part} | {difference} |" in card
    assert "Not measured" in cards.card(METHODS["lafite"])


def test_a_card_has_the_figures_of_the_tables_of_the_boards(cards):
    with (BOARDS / "digits" / "leaderboard.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["image_auroc"]]
    assert len(rows) > 30
    for row in rows:
        (line,) = [
            line
            for line in cards.card(METHODS[row["method"]]).splitlines()
            if "boards/digits/" in line
        ]
        value, low, high = (
            f"{float(row[key]):.3f}"
            for key in ("image_auroc", "image_auroc_low", "image_auroc_high")
        )
        assert f"| {value} \\[{low}, {high}\\] | 1 | {row['rank']} of {len(rows)} |" in line


def test_links_of_the_cards_lead_to_leaderboards(cards, tmp_path):
    cards._copy_boards(tmp_path)
    pages = cards.card(METHODS["anoddpm"]) + cards.card(Registry.read().datasets["synthbrain"])
    links = set(re.findall(r'href="\.\./\.\./([^"#]+)#([^"]+)"', pages))
    assert len(links) >= 5
    for page, anchor in links:
        assert f'id="{anchor}"' in (tmp_path / page).read_text("utf-8")
    on_page = re.findall(r'href="([^"]+)"', (DOCS / "boards.md").read_text("utf-8"))
    assert on_page and all((tmp_path / page).is_file() for page in on_page)
