"""spai-run with little: few open files, no home, no room for temporary files, a full disk, a list that is long."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.runtime.test_memory import WRITE_PEAK
from tests.support.commands import Ran, Run, command
from tests.support.images import Write

LINES = 200_000


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Write) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.png", "b.jpg", "c.tif", "d.webp", "e.gif", "f.jp2")):
        photo(f"p/{name}", 40 + seed, 60, seed=seed)
    Path("p/g.png").write_bytes(b"broken")


def ran(*arguments: object, environment: Mapping[str, str] = os.environ, prelude: str = "") -> Ran:
    started = command(*arguments, prelude=prelude)
    done = subprocess.run(started, capture_output=True, encoding="utf-8", env=dict(environment), check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def test_few_open_files(run: Run, tiny_detector: Path) -> None:
    expected = run("p", "--engine", tiny_detector, "--precision", "fp32")
    whole = [f"p/{name}" for name in ("a.png", "b.jpg", "c.tif", "d.webp", "e.gif", "f.jp2")] * 10
    assert expected.code == 3
    few = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))"
    assert ran("p", "--engine", tiny_detector, "--precision", "fp32", "--workers", 2, prelude=few) == expected
    assert ran(
        *whole, "--engine", tiny_detector, "--precision", "fp32", "--output", "s.csv", "--workers", 8, prelude=few
    ) == Ran(0, "", "")
    assert Path("s.csv").read_text().count(",,") == 0


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "C"}, {}], ids=["LANG", "LC_ALL", "none"])
def test_an_empty_environment(run: Run, tiny_detector: Path, locale: dict[str, str]) -> None:
    """No HOME, no TMPDIR or one that is not there, no locale."""
    kept = {name: value for name, value in os.environ.items() if name in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    environment = {**kept, **locale} if locale else {**kept, "TMPDIR": "/nowhere", "HOME": "/nowhere"}
    Path("p/a.png").rename("p/ä.png")
    expected = run("p", "--engine", tiny_detector, "--precision", "fp32")
    assert (expected.code, "p/ä.png," in expected.stdout) == (3, True)
    assert ran("p", "--engine", tiny_detector, "--precision", "fp32", environment=environment) == expected
    assert (
        ran("p", "--engine", tiny_detector, "--precision", "fp32", "--output", "s.csv", environment=environment).code
        == 3
    )
    assert Path("s.csv").read_text() == expected.stdout


@pytest.mark.parametrize("limit", [0, 40, 250, 600, 1500])
def test_a_disk_that_is_full_at_any_moment(run: Run, tiny_detector: Path, limit: int) -> None:
    """The run says so, leaves no file under its name, and goes on when there is room."""
    arguments = *["p/a.png"] * 40, "--engine", tiny_detector, "--output", "s.csv"
    full = ran(*arguments, prelude=f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    assert (full.code, full.stdout) == (2, "")
    assert full.stderr.startswith("spai-run: cannot write s.csv")
    assert full.stderr.count("\n") == 1
    assert not Path("s.csv").exists()
    assert run(*arguments, "--resume") == Ran(0, "", "")
    assert run(*arguments[:-1], "whole.csv").code == 0
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sorted(path.name for path in Path().glob("s.csv*")) == ["s.csv", "s.csv.resume", "s.csv.run.json"]


def test_a_list_of_many_lines(tiny_detector: Path) -> None:
    """It costs no more memory than its images, of which it names few here, and a resumed run reads it as well."""
    row = f"{'x' * 40},0,train\n"
    peaks = []
    for lines in (LINES // 10, LINES):
        Path("l.csv").write_text("image,class,split\n" + (row * (lines // 100) + "p/a.png,1,test\n") * 100)
        for resume in ([], ["--resume"]):
            options = "--split", "test", "--engine", tiny_detector, "--output", f"{lines}.csv", *resume
            assert ran("l.csv", *options, prelude=WRITE_PEAK.format(path="peak")) == Ran(0, "", "")
        peaks.append(int(Path("peak").read_text()) * 1024)
        assert Path(f"{lines}.csv").read_text().count("p/a.png,1,test,p/a.png,0.") == 100
    assert peaks[1] <= 1.1 * peaks[0]
