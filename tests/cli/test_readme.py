"""The README and docs/: commands are run or parsed, links lead somewhere, tables are true."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from spai_train.cli import COMMANDS
from spai_train.detectors import DETECTORS, find
from spai_train.zoo import ZOO
from tests.golden import CHECKPOINT, IMAGES
from tests.support.documents import blocks, lines, run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README.md": README, **DOCS}
ALL = "\n".join(PAGES.values())
ELSEWHERE = ("tutorial.md",)  # whose commands are run by a test of their own
LONGEST_README = 150  # lines, which one reads before one begins


@pytest.fixture
def desk(golden_detector: Path, tmp_path: Path) -> Path:
    """A folder with what the pages speak of; the golden checkpoint stands in for the official one."""
    folder = tmp_path / "desk"
    (folder / "photos").mkdir(parents=True)
    for path in IMAGES[:3]:
        shutil.copy(path, folder / "photos")
    shutil.copy(CHECKPOINT, folder / "spai.pth")
    shutil.copytree(golden_detector, folder / "spai")
    shutil.copy(ROOT / "examples" / "photo_china.jpg", folder / "photo.jpg")
    shutil.copytree(ROOT / "weights" / "demo", folder / "weights" / "demo")
    (folder / "notes.txt").write_text("not an image")
    (folder / "list.txt").write_text("photo.jpg\n")
    (folder / "dataset.csv").write_text("image,class,split\nphoto.jpg,0,test\nphotos/none.png,1,train\n")
    return folder


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```bash" in text and name not in ELSEWHERE])
def test_commands_in_their_order(page: str, desk: Path) -> None:
    for command in lines(PAGES[page], "bash"):
        done = run(command, desk)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for name in ("scores.csv", "report.html", "spai/detector.json", "spai/encoder.onnx", "spai/head.onnx"):
        assert (desk / name).is_file()


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```python" in text])
def test_python_blocks(page: str, desk: Path) -> None:
    for block in blocks(PAGES[page], "python"):
        (desk / "block.py").write_text(block)
        done = run(f"{sys.executable} block.py", desk)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        for name in re.findall(r'"(\w+\.txt)"', block):
            assert f"{name} not an image" in done.stdout


def test_console_lines_are_those_that_tests_know() -> None:
    """`make demo` and the wheel are tested below, `make test` is what runs this, and extras are read here."""
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {name for group in re.findall(r"pip install '\.\[([a-z0-9,]+)\]'", ALL) for name in group.split(",")}
    assert named >= {"cpu", "gpu", "rtx", "trt", "nvimgcodec", "quantize", "evaluate", "export"}
    assert all(re.search(rf"^{name} = \[", extras, flags=re.MULTILINE) for name in named)
    known = re.compile(r"make (demo|test)|pip install '\.\[[a-z0-9,]+\]'|(spai-run|spai-train|spai-export) .*")
    shown = [(name, line) for name, text in PAGES.items() for line in lines(text, "console")]
    assert [(name, line) for name, line in shown if name not in ELSEWHERE and not known.fullmatch(line)] == []
    assert ("README.md", "make demo") in shown


def test_commands_have_the_options_that_they_are_shown_with() -> None:
    """What they do is tested on small data (test_chain.py, test_tutorial.py); here each line must parse."""
    shown = [
        line.split()
        for text in PAGES.values()
        for language in ("console", "bash", "sh")
        for line in lines(text, language)
        if line.startswith("spai-")
    ]
    assert len(shown) > 20
    for words in shown:
        command = words[:2] if words[0] == "spai-train" else words[:1]
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= options_of(" ".join(command)), " ".join(words)


@cache
def options_of(command: str) -> frozenset[str]:
    done = run(f"{command} --help", ROOT)
    assert done.returncode == 0
    return frozenset(re.findall(r"--[a-z][a-z0-9-]+", done.stdout))


def test_every_command_and_option_is_in_the_help() -> None:
    commands = [f"spai-train {module.__name__.rpartition('.')[2]}" for module in COMMANDS]
    for command in commands:
        assert f"| `{command.split()[1]}` |" in DOCS["training.md"]
    shown = frozenset().union(*map(options_of, ["spai-run", "spai-export", "spai-train", *commands]))
    ours = "\n".join(text for name, text in PAGES.items() if name != "docker.md")
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", ours)) - {"--nproc-per-node"}
    assert options <= shown, "the documentation names an option that no command has"


@pytest.mark.parametrize("page", [*PAGES, "../CONTRIBUTING.md", "../benchmarks/published/README.md"])
def test_links_inside_the_repository_lead_somewhere(page: str) -> None:
    """To a file, and to a heading in it."""
    path = (ROOT if page == "README.md" else ROOT / "docs") / page
    for target, place in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", path.read_text(encoding="utf-8")):
        there = (path.parent / target) if target else path
        assert there.exists(), f"{page} links to {target}"
        if place:
            assert place[1:] in places_of(there), f"{page} links to {target}{place}"


def places_of(path: Path) -> set[str]:
    """The names that GitHub gives headings."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_in_the_readme() -> None:
    assert [name for name in DOCS if f"(docs/{name})" not in README] == []


def test_make_demo_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    done = run(f"make demo PYTHON={sys.executable}", clone)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "examples/" in line]
    assert len(rows) == len([path for path in (clone / "examples").iterdir() if path.suffix in (".jpg", ".png")])
    assert "no verdict on real photographs" in done.stderr
    assert list((clone / ".venv-run").rglob("site-packages/onnxruntime/__init__.py"))
    assert not list((clone / ".venv-run").rglob("site-packages/torch/__init__.py"))


def test_an_installed_wheel_has_the_demo(tmp_path: Path) -> None:
    """Built, unpacked elsewhere, run from a third place."""
    pip = f"{sys.executable} -m pip --quiet"
    assert run(f"{pip} wheel --no-deps --wheel-dir {tmp_path} {ROOT}", tmp_path).returncode == 0
    (wheel,) = tmp_path.glob("*.whl")
    assert run(f"{pip} install --no-deps --target site {wheel}", tmp_path).returncode == 0
    assert (tmp_path / "site" / "spai_runtime" / "examples" / "photo_china.jpg").is_file()  # of the accuracy check
    shutil.copy(ROOT / "examples" / "photo_china.jpg", tmp_path)
    code = "import sys, spai_runtime.cli.run as cli; print(cli.__file__); sys.exit(cli.main(['photo_china.jpg']))"
    done = run(f'PYTHONPATH={tmp_path}/site {sys.executable} -c "{code}"', tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "photo_china.jpg,0." in done.stdout
    assert done.stderr.count("\n") == 1
    assert "no verdict on real photographs" in done.stderr


def report(form: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "weights" / "report" / form / f"{name}.json").read_text("utf-8"))
    return content


def cell(metric: dict[str, float]) -> str:
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def test_the_table_of_the_demo_detector_is_that_of_its_evaluation() -> None:
    """AUC by generator, then the means of the detector and of the baselines, as PNG and as JPEG."""
    forms = ("png", "jpeg")
    results = {form: report(form, "metrics")["results"][0] for form in forms}
    sources = {form: {row["source"]: row for row in results[form]["sources"]} for form in forms}
    generators = [row["source"] for row in results["png"]["sources"] if row["class"] == 1]
    assert len(generators) == 10
    rows = {name: [sources[form][name]["metrics"]["auc"] for form in forms] for name in generators}
    rows["mean"] = [results[form]["mean"]["auc"] for form in forms]
    rows |= {name: [report(form, "baselines")[name]["auc"] for form in forms] for name in report("png", "baselines")}
    for name, metrics in rows.items():
        line = rf"^\| \**{re.escape(name)}\**(?:, unseen)? \| {' '.join(re.escape(f'{cell(m)} |') for m in metrics)}$"
        assert re.search(line, DOCS["detectors.md"], flags=re.MULTILINE), (
            f"{name}: {[cell(metric) for metric in metrics]}"
        )


REFUSED = ", refused without `--force`"


def test_the_demo_detector_is_the_one_that_was_evaluated() -> None:
    manifest = json.loads((ROOT / "weights" / "demo" / "detector.json").read_text("utf-8"))
    for form in ("png", "jpeg", "held-out-png", "held-out-jpeg"):
        metrics = report(form, "metrics")
        assert metrics["threshold"] == manifest["threshold"]
        assert manifest["encoder"]["sha256"] in metrics["detector"]["sha256"].values()
    assert f"{manifest['threshold']['value']:.4f}" in DOCS["detectors.md"]


def ratios() -> dict[str, str]:
    """The table of measured ratios: what its first column says → the number that its second begins with."""
    _, _, body = DOCS["benchmarks.md"].partition("| | ratio | asked for |\n|---|---|---|\n")
    rows = (line.split(" | ") for line in body.partition("\n\n")[0].splitlines())
    return {what.removeprefix("| "): ratio.partition(" ×")[0] for what, ratio, _ in rows}


@pytest.mark.parametrize(
    ("name", "key", "row"),
    [
        ("encoder", "ratio", "exported ViT-B/16 encoder on ONNX Runtime"),
        ("filter", "ratio", "low-pass and high-pass of 16 tiles"),
        ("run-medium", "ratio", "`spai-run` over 100 JPEGs"),
        ("fit_step-vitb", "ratio", "a step of `fit`, ViT-B/16 frozen"),
        ("fit_step-vitb", "ratio_fp32", "the same in fp32"),
        ("loading-vitb", "ratio", "`fit`'s loader"),
    ],
)
def test_ratios_are_those_of_committed_results(name: str, key: str, row: str) -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert [ratio for what, ratio in ratios().items() if what.startswith(row)] == [f"{result[key]:.3g}"]


def test_every_ratio_is_held() -> None:
    assert len(ratios()) == 6


def test_the_table_of_precisions_is_that_of_committed_results() -> None:
    results = [
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("precisions", "precisions-spai-demo")
    ]
    for name in ("fp16", "bf16", "int8", "fp8"):
        rows = [result["rows"][name] for result in results]
        cells = [f"{row['score_difference']['largest']:.1e}{'' if row['passed'] else REFUSED}" for row in rows]
        assert f"| {name} | {cells[0]} | {cells[1]} |" in DOCS["benchmarks.md"]
    manifest = json.loads((ROOT / "weights" / "demo" / "detector.json").read_text("utf-8"))
    assert results[1]["checkpoint_sha256"] == manifest["provenance"]["checkpoint_sha256"]


def test_the_table_of_checkpoints_is_the_zoo() -> None:
    rows = []
    for entry in ZOO.values():
        size = "not known" if entry.file.size is None else f"{entry.file.size:,}"
        lies = f"[{'on the hub' if entry.on_hub else 'elsewhere'}]({entry.file.source})"
        rows.append(f"| `{entry.name}` | {lies} | {size} | {entry.code_licence}; {entry.file.licence} |")
    assert (
        "| name | lies | bytes | code; weights |\n|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        in DOCS["detectors.md"]
    )


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("page", ["README.md", "detectors.md"])
def test_the_table_of_detectors_is_theirs(page: str, name: str) -> None:
    """The licence of the code, the name of that of the weights (the zoo says the rest), whether it is trained here."""
    spec, rows = find(name), re.findall(rf"^\| `{name}`.* \|$", PAGES[page], re.MULTILINE)
    weights = re.findall(r"[\w.-]+", spec.weights_licence)[0]
    *_, licences, trained = rows[0].removesuffix(" |").split(" | ")
    assert trained == ("yes" if spec.training else "no")
    assert licences.startswith(f"{spec.code_licence}; {weights}")


def test_the_table_of_speeds_is_the_benchmarks() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "detectors.json").read_text())
    speeds = ((name, rate, found["times_spai"][name]) for name, rate in found["images_per_s"].items())
    rows = [f"| `{name}` | {rate:.3g} | {times:.3g} × |" for name, rate, times in speeds]
    head = "<!-- from benchmarks/results/detectors.json -->\n| | images/s | against SPAI |\n|---|---|---|\n"
    assert head + "\n".join(rows) + "\n\n" in DOCS["benchmarks.md"]
    pair = json.loads((ROOT / "benchmarks" / "results" / "detectors-pair.json").read_text())
    assert f"take {pair['ratio']} × the time of their two encoders" in DOCS["benchmarks.md"]
