"""The pages as readers find them: links that lead somewhere, a site that holds all of them, and an index for models."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepsearch_data.release.lineage import citation

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "recipes").rglob("*.md")), *DOCS, ROOT / "llms.txt"]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link may name after its #: the headings, written as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
        assert page not in DOCS or target.is_relative_to(ROOT / "docs"), f"{link} leads out of the site"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_list_begins_after_an_empty_line(page: Path) -> None:
    """Without it GitHub shows a list, and the site a paragraph."""
    assert not re.findall(r"^(?!- |\d+\. |\s|<!--).+\n(?:- |\d+\. ).*$", prose(page), re.MULTILINE)


def test_every_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"^`?make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets, page.name


def test_the_layout_names_every_package() -> None:
    table = (ROOT / "AGENTS.md").read_text().partition("## Layout")[2].partition("\n\n`")[0]
    packages = {path.parent.name for path in (ROOT / "stepsearch_data").glob("*/__init__.py")}
    assert set(re.findall(r"`(\w+)/`", table)) == packages


def named(nav: Any) -> Iterator[str]:
    """The pages of a site's navigation."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from named(part)


def test_the_site_and_the_index_for_models_hold_every_page() -> None:
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in DOCS]
    site = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert sorted(named(site["nav"])) == pages
    listed = LINK.findall((ROOT / "llms.txt").read_text())
    assert sorted(link for link in listed if link.startswith("docs/")) == [f"docs/{page}" for page in pages]


def test_the_citation_names_the_paper_as_releases_do() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = cff["references"]
    assert {"cff-version", "message", "title", "authors"} <= cff.keys()
    assert citation([]) in (ROOT / "docs" / "index.md").read_text()
    bibtex = " ".join(citation([]).split())
    assert f"{{{paper['title']}}}" in bibtex
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in bibtex
    assert str(paper["year"]) in bibtex
    assert paper["identifiers"][0]["value"] in bibtex
