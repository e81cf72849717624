"""Graphs of whoever is not trusted: the same scores within limits, and what passes a limit costs a sentence."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from spai_runtime import Detector
from spai_runtime.child import Child, Limits
from spai_runtime.cli.commands import EXIT_REFUSED
from spai_runtime.engines import ISOLATED, isolated
from spai_runtime.engines.isolated import IsolatedEngine
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.errors import EngineError, RefusedError
from spai_runtime.manifest import FILE_NAME, Artifact, Graph, Manifest, Threshold
from spai_runtime.views import Tiles, ViewPolicy, WholeImage
from tests.golden import IMAGES
from tests.support.commands import Run, spawn
from tests.support.hostile_graphs import ENCODE, FAILS_WHILE_RUNNING, allocating, encoder, graph, looping, node, numbers
from tests.support.images import Write
from tests.support.small_graphs import ENCODER, SIDE, WIDTH, value, write_head

ROOMY = Limits(memory=1 << 30, cpu_seconds=60, seconds=60)
BATCH = np.zeros((2, SIDE, SIDE, 3), np.uint8)
LARGE = 625_000_000  # zeros: 2.5 GB


def engine_of(folder: Path, model: ModelProto, limits: Limits = ROOMY) -> IsolatedEngine:
    path = folder / "encoder.onnx"
    path.write_bytes(model.SerializeToString())
    return IsolatedEngine(path, ENCODER, limits)


def exported(folder: Path, model: ModelProto, views: ViewPolicy | None = None) -> Path:
    """A directory whose encoder is this model."""
    (folder / "m").mkdir()
    (folder / "m" / "encoder.onnx").write_bytes(model.SerializeToString())
    graphs = Graph.of(folder / "m" / "encoder.onnx"), Graph.of(write_head(folder / "m" / "head.onnx"))
    artifact, threshold = Artifact("onnx", "fp32", *graphs), Threshold(0.5, "a test")
    views = views or Tiles(SIDE, SIDE, 1)
    manifest = Manifest("strange", "strange", views, WIDTH, threshold, artifacts=(artifact,))
    (folder / "m" / FILE_NAME).write_bytes(manifest.dump())
    return folder / "m"


def children() -> set[int]:
    """Processes that this one has started and that have not ended."""
    return {int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _is_child(path)}


def _is_child(stat: Path) -> bool:
    try:
        state, parent, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return False
    return int(parent) == os.getpid() and state != "Z"


def test_scores_are_those_of_the_engine_in_this_process(golden_detector: Path) -> None:
    here = Detector.load(golden_detector, device="cpu", backend="onnxruntime")
    with here as open_, Detector.load(golden_detector, untrusted=True) as held:
        assert held.encoder.label == f"{open_.encoder.label}, isolated"
        for path in IMAGES[:2]:
            expected, found = open_.score(path), held.score(path)
            assert (found.score, found.logit, found.label) == (expected.score, expected.logit, expected.label)
            assert expected.attention is not None
            np.testing.assert_array_equal(found.attention, expected.attention)


def test_a_loop_without_end(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"encoder\.onnx was stopped, since it takes more than 1 s of processor time"):
        engine_of(tmp_path, looping(1 << 62), Limits(1 << 30, 1, 60)).run(BATCH)
    with pytest.raises(EngineError, match=r"encoder\.onnx was stopped, since it takes more than 1 s: if you trust"):
        engine_of(tmp_path, looping(1 << 62), Limits(1 << 30, 60, 1)).run(BATCH)


def test_a_batch_that_takes_too_much_memory(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, allocating(LARGE))
    with pytest.raises(EngineError, match=r"since it takes more than 1\.0 GiB of memory: give a smaller --batch-size"):
        engine.run(BATCH)
    engine.close()


def test_a_graph_that_does_not_load_within_the_limits(tmp_path: Path) -> None:
    constant = encoder(
        node("ConstantOfShape", "large", "zeros"),  # folded when it is loaded
        node("ReduceSum", "zeros", "nothing", keepdims=0),
        node("Add", "means nothing", "features"),
        more=[numbers("large", LARGE)],
    )
    with pytest.raises(EngineError, match=r"encoder\.onnx was stopped, since it takes more than 1\.0 GiB of memory"):
        engine_of(tmp_path, constant).run(BATCH)


def test_three_batches_in_succession_may_take_too_long(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, looping(1 << 62), Limits(1 << 30, 60, 0.5))
    for _ in range(3):
        with pytest.raises(EngineError, match="was stopped"):
            engine.run(BATCH)
    with pytest.raises(EngineError, match="took too long 3 times, and is not run again"):
        engine.run(BATCH)


def test_what_it_holds_goes_with_it(tmp_path: Path) -> None:
    before = children()
    engine = engine_of(tmp_path, graph(ENCODE))
    (process,) = children() - before
    engine.close()
    assert process not in children()


def test_a_child_that_somebody_kills(tmp_path: Path) -> None:
    before = children()
    engine = engine_of(tmp_path, looping(1 << 62))
    (process,) = children() - before
    os.kill(process, signal.SIGSTOP)  # as if it were working
    threading.Timer(0.2, os.kill, (process, signal.SIGKILL)).start()
    with pytest.raises(EngineError, match=r"encoder\.onnx was stopped, since its process ended by signal 9 \(Killed\)"):
        engine.run(BATCH)
    engine.close()


def test_what_fails_or_does_not_fit_is_said_as_without_limits(tmp_path: Path) -> None:
    for name in ("a TopK of too many", "too many rows"):
        model, message = FAILS_WHILE_RUNNING[name]
        engine = engine_of(tmp_path, model)
        with pytest.raises(EngineError, match=message) as caught:
            engine.run(BATCH)
        with pytest.raises(EngineError) as expected:
            OnnxEngine(tmp_path / "encoder.onnx", ENCODER).run(BATCH)
        assert str(caught.value) == str(expected.value)
        engine.close()


@pytest.mark.parametrize(
    "outputs", [[], [np.zeros((3, WIDTH), np.float32)], [np.zeros((2, WIDTH), np.float64)], [np.zeros(6, np.float32)]]
)
def test_what_a_child_says_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: Any) -> None:
    engine = engine_of(tmp_path, graph(ENCODE))
    monkeypatch.setattr(Child, "ask", lambda *_, **__: (None, outputs))
    with pytest.raises(EngineError, match=r"encoder\.onnx gives "):
        engine.run(BATCH)
    engine.close()


def test_a_run_ends_with_one_sentence(tmp_path: Path, run: Run, photo: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo("a.png", 40, 50)
    ran = run(image, "--engine", exported(tmp_path, allocating(LARGE)), "--untrusted-engine")
    assert (ran.code, ran.stderr.count("\n"), ran.stdout.count("\n")) == (2, 1, 1)
    assert "encoder.onnx was stopped, since it takes more than 2.0 GiB of memory" in ran.stderr
    shutil.rmtree(tmp_path / "m")
    monkeypatch.setattr(isolated, "SECONDS", 1)
    ran = run(image, "--engine", exported(tmp_path, looping(1 << 62)), "--untrusted-engine")
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    assert "encoder.onnx was stopped, since it takes more than 1 s: if you trust whoever made it" in ran.stderr


SAYS_ITS_PEAK = """
import atexit, pathlib
def said():
    lines = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    print("peak", lines["VmHWM"].split()[0])
atexit.register(said)
"""


def test_the_parent_stays_small(tmp_path: Path, photo: Write) -> None:
    image, directory = photo("a.png", 40, 50), exported(tmp_path, allocating(LARGE // 10))  # 250 MB, within the limits
    peaks = []
    for options in (["--untrusted-engine"], []):
        ran = spawn(image, "--engine", directory, *options, prelude=SAYS_ITS_PEAK)
        assert ran.code == 0, ran.stderr
        peaks.append(int(ran.stdout.split()[-1]) >> 10)
    assert peaks[0] < 200  # MiB
    assert peaks[1] > 300


def whole_image_encoder(zeros: int) -> ModelProto:
    """Of images of any size; it makes that many zeros for each pixel."""
    views = value("views", 2, ["views", "height", "width", WIDTH])
    nodes = [
        node("Shape", "views", "pixels", start=1, end=3),
        node("ReduceProd", "pixels", "count", keepdims=1),
        node("Mul", "count zeros", "large"),
        node("ConstantOfShape", "large", "made"),
        node("ReduceMean", "made", "nothing", keepdims=0),
        *ENCODE[:2],
        node("Add", "means nothing", "features"),
    ]
    return graph(nodes, numbers("zeros", zeros), inputs=[views])


def test_a_whole_image_that_takes_too_much_is_a_row(tmp_path: Path, run: Run, photo: Write) -> None:
    images = [photo("a.png", 40, 50), photo("b.png", 900, 900, seed=1), photo("c.png", 40, 50)]
    directory = exported(tmp_path, whole_image_encoder(1000), WholeImage())
    ran = run(*images, "--engine", directory, "--untrusted-engine", "--format", "jsonl")
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.code == 3
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert "since it takes more than 2.0 GiB of memory" in rows[1]["error"]
    assert rows[0]["logit"] == rows[2]["logit"] is not None


@pytest.fixture
def with_plan(tiny_detector: Path, tmp_path: Path) -> Path:
    """A directory of graphs and plans."""
    folder = Path(shutil.copytree(tiny_detector, tmp_path / "m"))
    for name in ("model.plan", "head.plan"):
        (folder / name).write_bytes(name.encode())
    plan = Artifact("tensorrt", "fp16", Graph.of(folder / "model.plan"), Graph.of(folder / "head.plan"))
    manifest = Manifest.load(folder)
    (folder / FILE_NAME).write_bytes(replace(manifest, artifacts=(plan, *manifest.artifacts)).dump())
    return folder


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("model.plan", (), "model.plan has no graph for --untrusted-engine, which refuses native code"),
        ("head.plan", ("--device", "cpu"), "head.plan has no graph for --untrusted-engine"),
        ("model.plan", ("--device", "cuda:0"), "--untrusted-engine runs graphs on the CPU alone, not on cuda:0"),
        ("", ("--device", "cuda"), "--untrusted-engine runs graphs on the CPU alone, not on cuda"),
        ("", ("--backend", "tensorrt"), "m has no graph for --untrusted-engine, which refuses native code"),
    ],
)
def test_what_is_native_code_or_not_on_the_cpu_is_refused(
    with_plan: Path, run: Run, photo: Write, file: str, options: Sequence[str], message: str
) -> None:
    ran = run(photo("a.png", 40, 50), "--engine", with_plan / file, "--untrusted-engine", *options)
    assert (ran.code, ran.stderr.count("\n")) == (EXIT_REFUSED, 1)
    assert message in ran.stderr
    assert "if you trust whoever made it, leave the option out" in ran.stderr


def test_graphs_run_where_plans_lie_beside_them(with_plan: Path) -> None:
    with Detector.load(with_plan, untrusted=True) as detector:
        assert detector.encoder.label.endswith("cpu, isolated")
    manifest = Manifest.load(with_plan)
    (with_plan / FILE_NAME).write_bytes(replace(manifest, artifacts=manifest.artifacts[:1]).dump())
    with pytest.raises(RefusedError, match="has no graph for --untrusted-engine"):
        Detector.load(with_plan, untrusted=True)


def test_no_row_for_the_untrusted_is_on_a_gpu_or_native() -> None:
    assert {row.device for row in ISOLATED} == {"cpu"}
    assert {kind for row in ISOLATED for kind in row.kinds} == {"onnx"}
