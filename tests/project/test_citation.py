"""CITATION.cff: what tools that read it ask for is there, and it says of project and paper what the rest says."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

# What the schema 1.2.0 of the Citation File Format asks for, of the whole file and of a reference.
REQUIRED = {"cff-version", "message", "title", "authors"}
REQUIRED_OF_REFERENCE = {"type", "title", "authors"}


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return content


def test_what_the_format_asks_for_is_there(citation: dict[str, Any]) -> None:
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= REQUIRED
    for reference in (citation["preferred-citation"], *citation["references"]):
        assert reference.keys() >= REQUIRED_OF_REFERENCE
        assert all(author.keys() == {"family-names", "given-names"} for author in reference["authors"])


def test_it_is_of_this_project(citation: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    keys = {"title": "name", "version": "version", "license": "license", "keywords": "keywords"}
    assert {key: citation[key] for key in keys} == {key: project[name] for key, name in keys.items()}


def test_the_paper_is_the_one_that_notice_names(citation: dict[str, Any]) -> None:
    paper, notice = citation["preferred-citation"], (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert f'"{paper["title"]}", {paper["conference"]["name"]}' in notice
    *names, last = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert f"{', '.join(names)} and {last}," in notice


def test_addresses_are_those_of_the_package(citation: dict[str, Any]) -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    (code,) = citation["references"]
    assert {citation["preferred-citation"]["url"], code["repository-code"]} == set(urls.values())
