"""Runs killed by SIGKILL at every kind of moment and resumed end as if they had been left alone, to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.kill import MOMENTS, PRETRAINING
from tests.support.training import write_labelled

KILLED = [moment for moment in MOMENTS if not moment.startswith("never")]
KILLED_IN_PRETRAINING = [moment for moment in PRETRAINING if not moment.startswith("never")]
Ended = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """By moment: exit codes, and digests of what was left. One of the images cannot be read."""
    folder = tmp_path_factory.mktemp("kill")
    table = write_labelled(folder / "data", validation=4)
    (folder / "data" / "images" / "003.png").write_text("no image")
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "kill.py"), str(folder), str(table)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return {line.pop("moment"): line for line in map(json.loads, done.stdout.splitlines())}


def test_every_moment_was_tried(ended: Ended) -> None:
    assert ended.keys() == {*MOMENTS, *PRETRAINING}
    assert all(ended[moment]["died"] == 0 for moment in ended if moment.startswith("never"))


@pytest.mark.parametrize("moment", KILLED)
def test_a_fit_that_was_killed_ends_the_same(moment: str, ended: Ended) -> None:
    alone = ended["never, with accumulation" if "accumulation" in moment else "never"]
    assert (ended[moment]["died"], ended[moment]["resumed"]) == (-9, 0)
    assert ended[moment]["digests"].keys() == {"last.safetensors", "best.safetensors", "metrics.jsonl"}
    assert ended[moment]["digests"] == alone["digests"]


@pytest.mark.parametrize("moment", KILLED_IN_PRETRAINING)
def test_a_pre_training_that_was_killed_ends_the_same(moment: str, ended: Ended) -> None:
    assert (ended[moment]["died"], ended[moment]["resumed"]) == (-9, 0)
    assert ended[moment]["digests"].keys() == {"last.pth", "metrics.jsonl"}
    assert ended[moment]["digests"] == ended["never, in pre-training"]["digests"]


def test_the_digests_tell_runs_apart(ended: Ended) -> None:
    never = [ended[moment]["digests"]["metrics.jsonl"] for moment in ended if moment.startswith("never")]
    assert len(set(never)) == 3
