"""Links lead somewhere, pages are found, and every public name has its place in the reference."""

import importlib
import re
from pathlib import Path

import pytest

import searchlib
import searchlib.exchange
import searchlib.knapsack
import searchlib.objectives
import searchlib.report
import searchlib.spaces
import searchlib.testing

pages = importlib.import_module("tests.docs.pages")
PAGES, ROOT, text = pages.PAGES, pages.ROOT, pages.text

REFERENCE = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.md"))}
PUBLIC = [
    f"{module.__name__}.{name}"
    for module in (
        searchlib, searchlib.spaces, searchlib.objectives, searchlib.report, searchlib.exchange, searchlib.testing,
        searchlib.knapsack,
    )
    for name in module.__all__
]  # fmt: skip


def anchors(page):
    """The identifiers of a page's headings, as the site makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text(page), flags=re.M | re.S), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", words))
    return found


def links(page):
    return re.findall(r"\]\((?!https?://)([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text(page), flags=re.M | re.S))


def test_there_are_links():
    assert sum(len(links(page)) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(path.relative_to(ROOT).as_posix()), f"{page}: {link}"


def test_every_page_is_in_the_menu():
    menu = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = [Path(page).relative_to("docs").as_posix() for page in PAGES if page.startswith("docs/")]
    assert len(menu) == len(set(menu)) > 20
    assert set(pages) <= set(menu), "add to the nav of mkdocs.yml"
    assert set(menu) <= set(pages)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference_once(name):
    assert sum(page.count(f"::: {name}\n") for page in REFERENCE.values()) == 1


def test_the_reference_names_nothing_else():
    named = re.findall(r"^::: (\S+)$", "\n".join(REFERENCE.values()), re.MULTILINE)
    assert len(named) > 150
    assert set(named) == set(PUBLIC)
