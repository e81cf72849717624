"""PyTorch as a contender: any encoder module, launched on one stream, whose features go to pinned memory."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from baseline import BaselineEncoder

from gpu.contender import BatchInFlight, Contender, Features, Tiles
from spai_export.precision import Precision, cast
from spai_train.detectors.spai import SPEC
from spai_train.detectors.spai.model import SPAI

Encoder = Callable[[torch.Tensor], torch.Tensor]


class TorchLane:
    """:param module: (N, S, S, 3) uint8 → (N, D)
    :param tiles: on the device of the module
    """

    def __init__(self, module: Encoder, tiles: torch.Tensor) -> None:
        self._module, self._tiles, self._features = module, tiles, torch.empty(0)
        self._done = torch.cuda.Event() if tiles.is_cuda else None

    def launch(self) -> None:
        with torch.inference_mode():
            features = self._module(self._tiles)
            if not len(self._features):
                self._features = torch.empty(features.shape, pin_memory=features.is_cuda)
            self._features.copy_(features, non_blocking=True)
        if self._done is not None:
            self._done.record()

    def wait(self) -> Features:
        if self._done is not None:
            self._done.synchronize()
        return self._features.numpy()


class TorchRunner:
    """Two lanes of one stream: launches queue up there, and the GPU goes from one to the next.

    :param replays: whether launches replay a CUDA graph
    :param forget: what is left to do once it is closed
    """

    default_batch: int | None = None

    def __init__(
        self,
        module: Encoder,
        tiles: Tiles,
        device: str,
        replays: Callable[[], bool | None] = lambda: False,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._replays, self._forget = replays, forget
        on_device = torch.from_numpy(tiles).to(device)
        self.lanes: Sequence[BatchInFlight] = [TorchLane(module, on_device) for _ in range(2)]

    @property
    def graph(self) -> bool | None:
        return self._replays()

    def close(self) -> None:
        self.lanes = ()
        self._forget()


def torch_contenders(model: SPAI, mode: str, device: str = "cuda") -> list[Contender]:
    """Upstream's formulation in eager fp32, and ours in bf16 under torch.compile.

    :param model: whose encoder they run, on the CPU in fp32; it is copied
    :param mode: of torch.compile
    """

    def upstream(tiles: Tiles) -> TorchRunner:
        spai = deepcopy(model)
        return TorchRunner(BaselineEncoder(spai.encoder, spai.config).eval().to(device), tiles, device)

    def compiled(tiles: Tiles) -> TorchRunner:
        encoder = cast(SPEC, model.encoder, Precision.BF16, fused=True).to(device)
        module = torch.compile(encoder, mode=mode, dynamic=False)
        replays = partial(recorded, torch.device(device))
        return TorchRunner(module, tiles, device, replays, torch.compiler.reset)  # recorded graphs go too

    return [
        Contender("PyTorch", "fp32", upstream, form="upstream"),
        Contender("torch.compile", "bf16", compiled, form=mode),
    ]


def recorded(device: torch.device) -> bool | None:
    """Whether torch.compile recorded CUDA graphs: whether it holds any. None from a PyTorch that holds them otherwise.

    :param device: on which this thread ran a compiled module
    """
    if device.type != "cuda":
        return False
    try:
        from torch._inductor.cudagraph_trees import get_manager  # noqa: PLC0415  no part of PyTorch's API

        manager = get_manager(device.index or 0, create_if_none_exists=False)
        return manager is not None and any(True for _ in manager.get_roots())
    except (AttributeError, ImportError, TypeError):
        return None
