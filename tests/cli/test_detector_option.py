"""`spai-run --detector NAME`, with a hub of our own: a process that exports, and runs that need neither of the two."""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spai_runtime import zoo
from spai_train.zoo import ZOO
from tests.support.boundary import BLOCK, HEAVY
from tests.support.commands import Ran, Run, command, spawn
from tests.support.hub import Hub, serving, small_checkpoint
from tests.support.images import Write

NAME = "community-forensics"
# Before a process of spai-run does anything, the one that it starts to export is told of another file for the row.
IN_PARENT = "import spai_runtime.zoo as z; z._START = z._START.replace('; from', {child!r} + '; from', 1)"
IN_CHILD = (
    "; from dataclasses import replace; from spai_train.zoo import ZOO; e = ZOO['{name}']"
    "; ZOO['{name}'] = replace(e, file=replace(e.file, size={size}, sha256='{sha256}'))"
    "; import spai_export.zoo as w; export = w._export"
    "; w._export = lambda *a: open('{log}', 'a').write('exports ') and export(*a)"
)


@dataclass(frozen=True)
class Desk:
    """A user's caches, and the hub."""

    folder: Path
    hub: Hub

    @property
    def log(self) -> Path:
        """A word an export."""
        return self.folder.with_suffix(".log")

    @property
    def prelude(self) -> str:
        """For processes in which the row is of the file that the hub has, and that log when they export."""
        content, log = self.hub.content, self.log.as_posix()
        sha256 = hashlib.sha256(content).hexdigest()
        return IN_PARENT.format(child=IN_CHILD.format(name=NAME, size=len(content), sha256=sha256, log=log))

    @property
    def environment(self) -> dict[str, str]:
        caches = {"SPAI_CACHE": str(self.folder / "ours"), "HF_HOME": str(self.folder / "theirs")}
        return {**self.hub.environment, **caches}

    def run(self, *arguments: object, prelude: str | None = None, **environment: str) -> Ran:
        """spai-run on a CPU, in a process."""
        changed = {**self.environment, **environment}
        return spawn(*arguments, "--device", "cpu", prelude=prelude or self.prelude, **changed)


@pytest.fixture(scope="module")
def content() -> bytes:
    return small_checkpoint()


@pytest.fixture
def desk(content: bytes, tmp_path: Path) -> Iterator[Desk]:
    entry = ZOO[NAME]
    with serving(Hub(entry.file, content)) as hub:
        yield Desk(tmp_path / "caches", hub)


def one_sentence(ran: Ran) -> str:
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert ran.stderr.startswith("spai-run: ")
    return ran.stderr


WITHOUT = (
    BLOCK.format(names=(*HEAVY, "huggingface_hub"))
    + """
def no_process(*_, **__):
    raise AssertionError("a process is started")
import subprocess
subprocess.Popen = no_process
"""
)


def test_two_at_once_then_one_without_hub_torch_and_process(desk: Desk, photo: Write, tmp_path: Path) -> None:
    folder = photo("images/a.png", 240, 300).parent
    photo("images/b.png", 30, 400, seed=1)
    with ThreadPoolExecutor() as pool:
        first = list(pool.map(lambda _: desk.run(folder, "--detector", NAME), range(2)))
    for ran in first:
        assert (ran.code, ran.stderr) == (0, "")
        assert ran.stdout.count("\n") == 3
    assert first[0] == first[1]
    assert (desk.log.read_text(), desk.hub.downloads) == ("exports ", 1), "the other waited for it"
    assert all(f"/{ZOO[NAME].file.repo}/" in asked or "/content/" in asked for asked in desk.hub.asked)
    (exported,) = (desk.folder / "ours" / "zoo").glob(f"*/{NAME}")

    asked = len(desk.hub.asked)
    outputs = tmp_path / "named.csv", tmp_path / "given.csv"
    again = desk.run(folder, "--detector", NAME, "--output", outputs[0], prelude=WITHOUT)
    given = desk.run(folder, "--engine", exported, "--output", outputs[1], prelude=WITHOUT)
    assert again == given == Ran(0, "", "")
    assert outputs[0].read_bytes() == outputs[1].read_bytes() == first[0].stdout.encode()
    records = [json.loads(Path(f"{output}.run.json").read_text()) for output in outputs]
    assert records[0] == records[1]
    assert records[0]["run"]["detector"] == NAME
    assert desk.run(folder, "--engine", exported, "--output", outputs[0], "--resume", prelude=WITHOUT).code == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert len(desk.hub.asked) == asked

    both = desk.run(folder, "--detector", NAME, "--engine", exported, "--fuse", "mean_logit", prelude=WITHOUT)
    assert both.code == 0
    assert both.stdout.partition("\n")[0].startswith(f"path,{NAME}_score,{NAME}_logit,{NAME}_label,{NAME}_2_score,")


STUB = (
    "; import spai_export.zoo as w; import time, pathlib; w._export = lambda *a: "
    "(pathlib.Path({marker!r}).write_text('begun'), time.sleep(100))"
)


def test_an_interrupted_run_ends_the_process_that_exports(desk: Desk, photo: Write, tmp_path: Path) -> None:
    """At once, though that works on."""
    marker = tmp_path / "begun"
    prelude = IN_PARENT.format(child=STUB.format(marker=str(marker)))
    started = command(photo("a.png", 30, 40), "--detector", NAME, prelude=prelude)
    environment = {**os.environ, **desk.environment}
    with subprocess.Popen(started, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not marker.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (130, 1)
    assert not list((desk.folder / "ours").rglob("detector.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "; import sys; sys.modules['torch'] = None",
            "torch is not installed, and exporting community-forensics needs",
        ),
        ("; import sys; sys.modules['huggingface_hub'] = None", "huggingface_hub is not installed, and exporting comm"),
        ("; import os; os._exit(7)", "the process that exports community-forensics ended with code 7; run it again"),
        (
            "; import spai_export.zoo as w; w.find = lambda _: print('noise') or 1 / 0",
            "community-forensics could not be exported: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_what_is_wrong_with_the_process_is_one_sentence(desk: Desk, photo: Write, change: str, said: str) -> None:
    if "modules" in change:
        change += "; import spai_export.zoo"
    ran = desk.run(photo("a.png", 30, 40), "--detector", NAME, prelude=IN_PARENT.format(child=change))
    assert one_sentence(ran).startswith(f"spai-run: {said}")
    assert not desk.hub.asked


def test_names_and_options(run: Run, photo: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which asks one that exports for each name that is not in the cache."""
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    image = photo("a.png", 30, 40)
    for name in ("../zoo", "", "Community-Forensics"):
        assert "spai-run: the zoo has no " in one_sentence(run(image, "--detector", name))
    assert "does not lie on the Hugging Face hub: get weights.pth" in one_sentence(
        run(image, "--detector", "clipdet-latent10k")
    )
    assert "--accept-licence is for weights that --detector gets" in one_sentence(run(image, "--accept-licence"))
    assert "give --engine or --detector more than once" in one_sentence(run(image, "--detector", NAME, "--fuse", "lse"))
    assert not (tmp_path / "cache").exists()


def test_what_the_process_is_asked_for(
    run: Run, photo: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_detector: Path
) -> None:
    asked: list[zoo.Wanted] = []

    def ask(wanted: zoo.Wanted) -> zoo.Message:
        asked.append(wanted)
        return zoo.Message(str(tiny_detector))

    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "_ask", ask)
    image = photo("a.png", 70, 80)
    ran = run(image, "--detector", "dda", "--detector", NAME, "--accept-licence", "--quiet", "--engine", tiny_detector)
    assert (ran.code, ran.stderr) == (0, "")
    assert asked == [zoo.Wanted("dda", True, True), zoo.Wanted(NAME, True, True)]
    assert ran.stdout.startswith("path,tiny_score,tiny_logit,tiny_label,tiny_2_score,")
    assert replace(ZOO["dda"]).on_hub
