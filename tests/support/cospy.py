"""CO-SPY's checkpoints as its authors write them, with random weights that are the same everywhere."""

import json
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden" / "cospy"

# How large the weights of the last layers are: logits differ by more than 1, and none is so large that fp32 fails.
SCALES = {
    "semantic/fc.weight": 4.0,
    "fusion/fc.weight": 4.0,
    "sd-v1_4/artifact/fc.weight": 0.1,
    "progan/classifier/weight": 2.0,
    "sd-v1_4/classifier/weight": 0.1,
}


def drawn(name: str, shape: Sequence[int]) -> Tensor:
    """A tensor of random weights, which follow from its name and shape: NumPy never changes its `RandomState`."""
    numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(prod(shape)).reshape(shape)
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.tensor(7)
    if kind == "running_var":
        numbers = np.exp(numbers / 2)
    elif len(shape) > 1:
        scale = next((scale for ending, scale in SCALES.items() if name.endswith(ending)), 1.0)
        numbers *= scale * prod(shape[1:]) ** -0.5
    else:
        numbers = (kind == "weight") + numbers / 5
    return torch.tensor(numbers, dtype=torch.float32)


def write_folder(variant: str, folder: Path) -> None:
    """The three files of a fused detector, as upstream publishes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("semantic", "artifact", "fusion"):
        torch.save(_state(variant, part), folder / f"{part}_weights.pth")


def write_end_to_end(variant: str, path: Path) -> None:
    """The one file of a detector that was trained end to end; its branches are those of the fused one."""
    artifact = _state(variant, "artifact")
    parts = {
        "sem_fc": _below("fc.", _state(variant, "semantic")),
        "art_fc": _below("fc.", artifact),
        "art_encoder": _below("artifact_encoder.", artifact),
        "classifier": _state(variant, "classifier"),
    }
    torch.save(parts, path)


def write_tower(variant: str, path: Path) -> None:
    """The tower in the names of OpenCLIP (SigLIP) or transformers (CLIP), with parts that stand for that of texts."""
    save_file({**_state(variant, "tower"), "logit_scale": torch.ones([]), "text.x": torch.ones(3)}, path)


def _state(variant: str, part: str) -> dict[str, Tensor]:
    """:param part: a key of the committed shapes"""
    shapes: dict[str, Sequence[int]] = json.loads((FOLDER / f"{variant}_shapes.json").read_text())[part]
    return {name: drawn(f"{variant}/{part}/{name}", shape) for name, shape in shapes.items()}


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
