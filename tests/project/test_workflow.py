"""The GitHub workflow: valid YAML that runs .ci/run on every Python of the package, with the right to read alone."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TRIGGERS = True  # YAML 1.1, which PyYAML reads, takes the key `on` for a truth value


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def job(workflow: dict[Any, Any]) -> dict[str, Any]:
    (only,) = workflow["jobs"].values()
    job: dict[str, Any] = only
    return job


def test_the_last_step_is_what_a_change_must_pass(job: dict[str, Any]) -> None:
    command = ROOT / job["steps"][-1]["run"]
    assert command == ROOT / ".ci" / "run"
    assert os.access(command, os.X_OK)


def test_pythons_are_those_of_the_package(job: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"


def test_it_may_read_and_no_more(workflow: dict[Any, Any], job: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    assert "pull_request_target" not in workflow[TRIGGERS]  # which would run a stranger's code with our rights


def test_actions_have_a_version_and_the_job_an_end(job: dict[str, Any]) -> None:
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+)*", action) for action in used)
    assert job["timeout-minutes"] <= 90
