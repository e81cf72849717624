"""The shape of the house: imports that go one way and in no circle, small files, a short way from command to engine."""

import ast
import graphlib
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spai_runtime.engines import BACKENDS, ISOLATED

ROOT = Path(__file__).parents[2]
PACKAGES = ("spai_runtime", "spai_train", "spai_export")
LONGEST = 250  # lines of a module
DEEPEST = 8  # calls of ours from `main` to the engine's own


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(name: str) -> set[str]:
    """Modules of ours that a module imports, at its top or within a function; not what only type checkers read."""
    found = set()
    for node in running(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in FILES else str(node.module) for one in inside}
    if name == "spai_runtime.engines":  # whose rows name functions instead of importing them
        found |= {reference.partition(":")[0] for row in (*BACKENDS, *ISOLATED) for reference in (row.probe, row.load)}
    return found & FILES.keys()


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All below a node but what is for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from running(child)


GRAPH = {name: imported(name) for name in FILES}


def test_no_import_goes_in_a_circle() -> None:
    order = list(graphlib.TopologicalSorter(GRAPH).static_order())
    assert len(order) == len(FILES) > 100


def test_a_lazy_import_counts() -> None:
    """The one for several GPUs stands within a function, the engines behind the table in its rows."""
    assert GRAPH["spai_runtime.engines"] >= {
        "spai_runtime.engines.replicas",
        "spai_runtime.engines.tensorrt",
        "spai_runtime.engines.onnxruntime",
    }


@pytest.mark.parametrize(
    ("package", "may"),
    [("spai_runtime", ()), ("spai_train", ("spai_runtime",)), ("spai_export", ("spai_runtime", "spai_train"))],
)
def test_imports_go_one_way(package: str, may: tuple[str, ...]) -> None:
    for name in FILES:
        if name.partition(".")[0] == package:
            strangers = {other for other in GRAPH[name] if other.partition(".")[0] not in (package, *may)}
            assert not strangers, f"{name} imports {', '.join(sorted(strangers))}"


def test_no_module_is_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_few_calls_lie_between_the_command_and_the_engine(
    monkeypatch: pytest.MonkeyPatch, run: Any, tiny_detector: Path, photo: Any
) -> None:
    import onnxruntime  # noqa: PLC0415

    real, depths = onnxruntime.InferenceSession.run, []

    def counted(*arguments: Any, **options: Any) -> Any:
        codes = [frame.f_code for frame, _ in traceback.walk_stack(sys._getframe())]
        ours = [code for code in codes if str(ROOT / "spai_runtime") in code.co_filename]
        depths.append(sum(not code.co_name.startswith("<") for code in ours))  # a comprehension is no call
        return real(*arguments, **options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counted)
    photo("a.png", 70, 90)
    folder = photo("b.png", 90, 130).parent
    options = "--backend", "onnxruntime", "--device", "cpu", "--batch-size", 3
    ran = run(folder, "--engine", tiny_detector, "--output", folder / "scores.csv", *options)
    assert ran.code == 0, ran.stderr
    assert len(depths) >= 4, "batches, one that is flushed, and the head"
    assert 0 < max(depths) <= DEEPEST, "of the encoder or the head"


LOADED = """
import sys
from spai_runtime.cli.run import main
code = main()
print(*sorted(name for name in sys.modules if name.startswith("spai_runtime.")), file=sys.stderr)
sys.exit(code)
"""
FOR_GPUS = (
    "engines.cuda",
    "engines.tensorrt",
    "engines.onnxruntime_cuda",
    "engines.replicas",
    "scoring.device_batcher",
)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_run_on_a_cpu_imports_nothing_for_gpus(tiny_detector: Path, photo: Any, device: str) -> None:
    image = photo("a.png", 70, 90)
    command = [sys.executable, "-c", LOADED, str(image), "--engine", str(tiny_detector), "--device", device]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = ran.stderr.split()
    assert {"spai_runtime.engines.onnxruntime", "spai_runtime.scoring.batcher"} <= {*loaded}
    assert not [name for name in loaded if name.startswith(tuple(f"spai_runtime.{part}" for part in FOR_GPUS))]
    assert all(any(name.startswith(f"spai_runtime.{part}") for name in FILES) for part in FOR_GPUS)


def test_an_export_imports_nothing_that_reads_training_images() -> None:
    """It runs where lmdb and accelerate are not installed."""
    detector = "from spai_train.detectors import find; find('spai')"
    code = f"import sys, spai_export.directory, spai_export.tensorrt.export; {detector}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "spai_train.detectors.spai" in loaded
    assert not {"lmdb", "accelerate", "spai_train.data", "spai_train.training"} & {*loaded}
