"""The engines on a real GPU, against ONNX Runtime on the CPU."""

import shutil
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from spai_runtime.engines.base import Contract, DeviceEngine, Engine
from spai_runtime.engines.cuda.engine import CudaEngine, Gpu
from spai_runtime.engines.tensorrt_target import Target
from spai_runtime.errors import EngineError
from spai_runtime.images import Picture
from spai_runtime.manifest import Artifact, Manifest
from spai_runtime.views import Tiles
from tests.support.images import pixels
from tests.support.loading import crops_of, load_graph, load_plan
from tests.support.models import TINY

pytestmark = pytest.mark.gpu

SIDE = TINY.tile_size
CONTRACTS = {"encoder": Contract.encoder((SIDE, SIDE), TINY.features), "head": Contract.head(TINY.features)}
POLICY = Tiles(SIDE, SIDE, 4)
BATCH = 8

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    try:
        return Gpu.find("cuda:0")
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def directory(gpu: Gpu, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """That plans may be written into; nothing is exported where there is no GPU."""
    folder = tmp_path_factory.mktemp("gpu") / "detector"
    shutil.copytree(request.getfixturevalue("tiny_detector"), folder)
    return folder


@pytest.fixture(scope="module")
def plan(gpu: Gpu, directory: Path) -> Artifact:
    if find_spec("tensorrt") is None:
        pytest.skip("TensorRT is not installed: pip install 'spai-toolkit[trt]'")
    from spai_export.tensorrt.plans import BuildOptions, build  # noqa: PLC0415

    options = BuildOptions(batch_size=BATCH, optimization_level=0, head_views=64, device=gpu.device)
    (artifact,) = build(directory, Manifest.load(directory), directory, options).artifacts
    return artifact


@pytest.fixture(params=["onnxruntime", "tensorrt"])
def back_end(request: pytest.FixtureRequest, gpu: Gpu) -> str:
    import onnxruntime  # noqa: PLC0415

    assert gpu.device == "cuda:0"
    if request.param == "tensorrt":
        request.getfixturevalue("plan")
    elif "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA: pip install 'spai-toolkit[gpu]'")
    return str(request.param)


@pytest.fixture
def load(back_end: str, directory: Path, request: pytest.FixtureRequest) -> "Load":
    return Load(directory, request.getfixturevalue("plan") if back_end == "tensorrt" else None)


class Load:
    """Engines of one back end, and the reference."""

    def __init__(self, directory: Path, plan: Artifact | None) -> None:
        self.directory, self.plan = directory, plan

    def __call__(self, graph: str) -> CudaEngine:
        contract = CONTRACTS[graph]
        if self.plan is None:
            engine = load_graph(self.directory / f"{graph}.onnx", contract, "cuda:0")
        else:
            path = self.directory / getattr(self.plan, graph).file
            engine = load_plan(path, contract, "cuda:0", Target.of(path, self.plan))
        assert isinstance(engine, CudaEngine)
        return engine

    def reference(self, graph: str) -> Engine:
        return load_graph(self.directory / f"{graph}.onnx", CONTRACTS[graph], "cpu")


def images() -> list[Image]:
    return [
        pixels(height, width, seed) for seed, (height, width) in enumerate([(70, 90), (1, 40), (32, 32), (31, 200)])
    ]


def views_of(pictures: Sequence[Image]) -> NDArray[np.uint8]:
    return np.concatenate([POLICY.layout(*image.shape[:2]).stack(Picture.from_array(image)) for image in pictures])


def in_slots(engine: DeviceEngine, pictures: Sequence[Image], capacity: int = BATCH) -> NDArray[np.float32]:
    """Features of all views, through two slots in turn."""
    slots = [engine.acquire(capacity) for _ in range(2)]
    sent = [slots[0].upload(image) for image in pictures]
    crops = [
        crop
        for image, picture in zip(sent, pictures, strict=True)
        for crop in crops_of(image, POLICY.layout(*picture.shape[:2]))
    ]
    features = []
    for start in range(0, len(crops), 2 * capacity):
        parts = [crops[at : at + capacity] for at in (start, start + capacity)]
        running = [(slot, part) for slot, part in zip(slots, parts, strict=True) if part]
        for slot, part in running:
            slot.launch(part, capacity)
        features += [slot.wait().copy() for slot, _ in running]
    for slot in slots:
        engine.release(slot)
    return np.concatenate(features)


def test_arrays_through_the_encoder(load: Load) -> None:
    views = views_of(images())
    expected = load.reference("encoder").run(views)[0]
    for count in (1, BATCH, len(views)):
        np.testing.assert_allclose(load("encoder").run(views[:count])[0], expected[:count], atol=1e-3)


def test_arrays_through_the_head(load: Load) -> None:
    generator = np.random.default_rng(0)
    batches = [generator.normal(size=(1, views, TINY.features)).astype(np.float32) for views in (4, 1, 64, 9)]
    expected = load.reference("head").run_all(batches)
    for found, wanted in zip(load("head").run_all(batches), expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_slots_see_the_views_of_the_host(load: Load) -> None:
    """The same graph on the same GPU: what differs is who cropped the views."""
    pictures, engine = images(), load("encoder")
    np.testing.assert_allclose(in_slots(engine, pictures), engine.run(views_of(pictures))[0], atol=1e-4)
    expected = load.reference("encoder").run(views_of(pictures))[0]
    np.testing.assert_allclose(in_slots(engine, pictures), expected, atol=1e-3)
    engine.close()


def test_the_same_view_has_the_same_digits_in_any_company(load: Load) -> None:
    engine, pictures = load("encoder"), images()
    together = in_slots(engine, pictures)
    alone = np.concatenate([in_slots(engine, [picture]) for picture in pictures])
    np.testing.assert_array_equal(together, alone)
    again = in_slots(load("encoder"), pictures)
    np.testing.assert_array_equal(together, again)


def test_smaller_batches_in_a_slot(load: Load) -> None:
    pictures, engine = images()[:1], load("encoder")
    slot = engine.acquire(BATCH)
    crops = crops_of(slot.upload(pictures[0]), POLICY.layout(70, 90))
    expected = load.reference("encoder").run(views_of(pictures))[0]
    for bucket in (4, BATCH, 1, 4, BATCH):
        slot.launch(crops[:bucket], bucket)
        np.testing.assert_allclose(slot.wait(), expected[:bucket], atol=1e-3)


def test_threads(load: Load) -> None:
    """Slots that were made in one thread are used in another, while arrays run."""
    engine, pictures = load("encoder"), images()
    expected, failures = in_slots(engine, pictures), list[BaseException]()

    def work() -> None:
        try:
            for _ in range(5):
                np.testing.assert_allclose(in_slots(engine, pictures), expected, atol=1e-4)
                engine.run(views_of(pictures)[:3])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
