"""ONNX Runtime and TensorRT as contenders: the engines of spai_runtime, through `Detector.load`, as a user has them."""

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

from models import exported

from gpu.contender import BatchInFlight, Contender, Features, Tiles
from gpu.plans import planned
from spai_export.choices import Precision, TrtFor
from spai_runtime.detector import Detector, demo_directory
from spai_runtime.engines.base import Crop
from spai_runtime.engines.cuda.slot import CudaSlot

DEVICE = "cuda:0"


class SlotLane:
    """A slot whose tiles went up once, one above the other in an image that is as wide as a tile."""

    def __init__(self, slot: CudaSlot, tiles: Tiles) -> None:
        size = tiles.shape[1]
        self._slot, self._pixels = slot, tiles.reshape(-1, size, 3)
        image = slot.upload(self._pixels)
        self._crops = [Crop(image, size * row, 0) for row in range(len(tiles))]

    def launch(self) -> None:
        self._slot.launch(self._crops, len(self._crops))

    def wait(self) -> Features:
        return self._slot.wait()


class EngineRunner:
    """A detector whose encoder's slots are the lanes; the head is loaded beside it, as it is in `spai-run`."""

    def __init__(self, detector: Detector, tiles: Tiles) -> None:
        self.detector, self._tiles = detector, tiles
        engine = detector.encoder.as_device_engine
        assert engine is not None
        self._engine = engine
        self.default_batch: int | None = self._engine.batch_size
        self._slots: list[CudaSlot] = []

    @cached_property
    def lanes(self) -> Sequence[BatchInFlight]:
        """Slots are taken when they are first wanted: a run of the whole pipeline takes its own."""
        self._slots = [self._engine.acquire(len(self._tiles)) for _ in range(2)]
        return [SlotLane(slot, self._tiles) for slot in self._slots]

    @property
    def graph(self) -> bool | None:
        """Of slots that were taken; a recording that another thread spoils is given up without an error."""
        return all(slot.recorded for slot in self._slots) if self._slots else None

    def close(self) -> None:
        self.__dict__.pop("lanes", None)
        for slot in self._slots:
            self._engine.release(slot)
        self.detector.close()


def engine_contenders(model: str, batch: int) -> list[Contender]:
    """The most telling first: the later ones may find that the time is up.

    :param model: of CONFIGS
    :param batch: the least that plans are tuned for; a contender of more tiles gets a plan of its own
    """
    return [
        _onnx(model, Precision.FP16, fused=True),
        _tensorrt(model, Precision.FP16, batch),
        _tensorrt(model, Precision.FP8, batch),
        _onnx(model, Precision.BF16, fused=True),
        _onnx(model, Precision.FP32, fused=False),
        _onnx(model, Precision.FP16, fused=False),
        _tensorrt(model, Precision.BF16, batch),
        _tensorrt(model, Precision.INT8, batch),
        _tensorrt(model, Precision.FP32, batch),
        _tensorrt(model, Precision.FP16, batch, TrtFor.RTX),
        _tensorrt(model, Precision.FP8, batch, TrtFor.RTX),
        _tensorrt(model, Precision.INT8, batch, TrtFor.RTX),
    ]


def _onnx(model: str, precision: Precision, *, fused: bool) -> Contender:
    def prepared(_: int) -> None:
        _load(demo_directory() / "encoder.onnx").close()  # what is missing is said before anything is exported
        exported(model, precision, fused=fused)

    def loaded(tiles: Tiles) -> EngineRunner:
        return EngineRunner(_load(exported(model, precision, fused=fused) / "encoder.onnx"), tiles)

    return Contender("ONNX Runtime", precision, loaded, prepared, "fused attention" if fused else "plain attention")


def _tensorrt(model: str, precision: Precision, batch: int, trt_for: TrtFor = TrtFor.GPU) -> Contender:
    plan = cache(lambda size: planned(model, precision, size, DEVICE, trt_for))

    def prepared(size: int) -> Path:
        return plan(max(size, batch))

    def loaded(tiles: Tiles) -> EngineRunner:
        return EngineRunner(_load(prepared(len(tiles))), tiles)

    return Contender("TensorRT for RTX" if trt_for is TrtFor.RTX else "TensorRT", precision, loaded, prepared)


def _load(graph: Path) -> Detector:
    """With the head that belongs to it; a graph that is named runs, and no other."""
    return Detector.load(graph, device=DEVICE)
