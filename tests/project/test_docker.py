"""The Dockerfile: what a linter does not see. No Docker is needed; hadolint was run by hand."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Instructions = list[tuple[str, str]]


@pytest.fixture(scope="module")
def instructions() -> Instructions:
    """Of the Dockerfile: (`COPY`, `--from=build /opt/spai /opt/spai`), and so on."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = (line for line in text.replace("\\\n", " ").splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


@pytest.fixture(scope="module")
def last(instructions: Instructions) -> Instructions:
    """What the image itself is made by: the last stage."""
    return instructions[max(index for index, (name, _) in enumerate(instructions) if name == "FROM") :]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return content


def of(instructions: Instructions, wanted: str) -> list[str]:
    return [rest for name, rest in instructions if name == wanted]


def sources(instructions: Instructions) -> list[str]:
    """Paths of this repository that are copied into the image."""
    copies = [rest.split() for rest in of(instructions, "COPY") if not rest.startswith("--from")]
    return [path for *paths, _ in copies for path in paths]


def test_it_runs_as_nobody(last: Instructions) -> None:
    assert of(last, "USER") == ["65534:65534"]
    after = last[last.index(("USER", "65534:65534")) :]
    assert not of(after, "RUN") + of(after, "COPY"), "else root's files come after"


def test_nothing_unseen_is_fetched(instructions: Instructions) -> None:
    """Beside the base image and packages: no address, and no image without a version."""
    assert not of(instructions, "ADD")
    assert not re.search(r"https?:|curl|wget|\| *(ba)?sh", " ".join(of(instructions, "RUN")))
    images = [rest.split()[0] for rest in of(instructions, "FROM")]
    assert images
    assert all(re.fullmatch(r"python:\$\{PYTHON\}-slim-[a-z]+", image) for image in images)


def test_its_python_is_one_of_the_packages(instructions: Instructions, project: dict[str, Any]) -> None:
    (python,) = (rest.removeprefix("PYTHON=") for rest in of(instructions, "ARG"))
    assert f"Programming Language :: Python :: {python}" in project["project"]["classifiers"]


def test_what_is_copied_is_there_and_not_ignored(instructions: Instructions) -> None:
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert allowed[1] == "*"
    for path in sources(instructions):
        assert (ROOT / path).exists(), path
        assert f"!{path}" in allowed, path
    hidden = [line for line in allowed[2:] if not line.startswith("!")]
    assert not [path for path in sources(instructions) if any(fnmatch.fnmatch(path, line) for line in hidden)]


def test_all_that_the_wheel_is_built_from_is_copied(instructions: Instructions, project: dict[str, Any]) -> None:
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    about = project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"
    assert {*wheel["packages"], *wheel["force-include"], *about} == {*sources(instructions)}


def test_the_first_command_is_one_of_the_packages(last: Instructions, project: dict[str, Any]) -> None:
    (command,) = json.loads(of(last, "ENTRYPOINT")[0])
    assert command in project["project"]["scripts"]


def test_it_writes_to_tmp_alone(last: Instructions) -> None:
    (words,) = of(last, "ENV")
    environment = dict(word.split("=", 1) for word in words.split())
    assert environment["HOME"] == "/tmp"
    assert environment["SPAI_CACHE"].startswith("/tmp/")


def test_labels_are_those_of_the_package(last: Instructions, project: dict[str, Any]) -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', " ".join(of(last, "LABEL"))))
    wanted = {"title": "name", "version": "version", "licenses": "license"}
    assert {label: labels[label] for label in wanted} == {key: project["project"][of] for key, of in wanted.items()}
