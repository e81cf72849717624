"""Dual Data Alignment (NeurIPS 2025, roy-ch/Dual-Data-Alignment): a linear layer on the CLS token of DINOv2 with LoRA.

Loading a checkpoint adds the LoRA to the weights, and resamples DINOv2's positions to the patches of a view.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from torch import Tensor, nn

from spai_runtime.views import CentreCrop
from spai_train.detectors import class_token
from spai_train.detectors.class_token import BACKBONE, ClassTokenConfig, ClassTokenEncoder, is_ours, sizes_of
from spai_train.detectors.linear import LinearHead, LinearModel
from spai_train.detectors.spec import DetectorSpec
from spai_train.models.half import halve_backbone
from spai_train.models.positions import resample_positions, spread_positions
from spai_train.models.vit import Family
from spai_train.tensors import CheckpointError, Content, State, check_numbers, dimensions, refuse, shape_of

SIDE, PATCH = 336, 14  # of a view (upstream's inference.py, cropSize of its training), and of DINOv2's patches
GRID = 37  # patches along a side that DINOv2 has positions of: 518 pixels (its hubconf)
RANK, ALPHA = 8, 1.0  # upstream's LoRA, in its training as in its inference.py; alpha stands in no checkpoint

_DINOV2 = Family(mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD, options={"init_values": 1e-5}, final_norm=True)
_NAMES = (("fc.", "head.linear."), ("model.", BACKBONE))  # upstream's, behind `base_model.` where there is LoRA → ours
_ADAPTED = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # upstream's `lora_targets`
_POSITIONS = f"{BACKBONE}pos_embed"


@dataclass(frozen=True)
class DDAConfig(ClassTokenConfig):
    """The dimensions; the defaults are DINOv2's ViT-L/14 at 336 pixels, `Junwei-Xi/Dual-Data-Alignment` on the hub."""

    side: class_token.Side = SIDE
    patch_size: class_token.PatchSize = PATCH
    width: class_token.Width = 1024
    depth: class_token.Depth = 24


class DDA(LinearModel):
    """See `DetectorModel`."""

    detector = "dda"

    def __init__(self, config: DDAConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, ClassTokenEncoder(config, _DINOV2), LinearHead(config.features)


def recognises(state: State) -> bool:
    """Whether these are tensors of upstream's DINOv2 and its `fc`, with LoRA or without, or ours."""
    names = {name.removeprefix("base_model.") for name in state}
    return names >= {"model.cls_token", "fc.weight"} or is_ours(state, layer_scale=True)


def read(content: Content) -> tuple[DDAConfig, State]:
    """Reads upstream's training checkpoint, with LoRA or without, or a bare state dict of either names.

    :raises CheckpointError: tensors that tell the dimensions are missing, or LoRA, positions or patches do not fit
    """
    if is_ours(content.state, layer_scale=True):
        return dimensions(sizes_of(content.state), DDAConfig), content.state
    state = _merged({_renamed(name): tensor for name, tensor in content.state.items() if "mask_token" not in name})
    sizes = sizes_of(state)
    if sizes["patch_size"] != PATCH:  # smaller ones would have far more positions than the file
        raise CheckpointError(f"{content.path} has patches of {sizes['patch_size']} pixels; DINOv2's have {PATCH}")
    config = dimensions({**sizes, "side": SIDE}, DDAConfig)
    return config, {**state, _POSITIONS: resample_positions(state[_POSITIONS], config.grid)}


def to_content(model: DDA) -> dict[str, State]:
    """What torch.save must write for upstream's inference.py: the weights are the merged ones, and the LoRA adds
    nothing to them; the positions are a grid of 37×37 that DINOv2 resamples to ours.

    :raises CheckpointError: upstream's code gives the network views or patches of another size
    """
    config, state = model.config, model.state_dict()
    if (config.side, config.patch_size) != (SIDE, PATCH):
        raise CheckpointError(f"upstream looks at {SIDE} pixels in patches of {PATCH}; write .safetensors for others")
    state[_POSITIONS] = spread_positions(state[_POSITIONS], GRID)
    state[f"{BACKBONE}mask_token"] = torch.zeros(1, config.width)
    return {"model": dict(part for name, tensor in state.items() for part in _adapted(name, tensor))}


def _renamed(name: str) -> str:
    """Upstream's name of a tensor → ours."""
    name = name.removeprefix("base_model.")
    ours = (prefix + name.removeprefix(theirs) for theirs, prefix in _NAMES if name.startswith(theirs))
    return next(ours, name)


def _merged(state: State) -> dict[str, Tensor]:
    """The weights with their LoRA added to them; weights without a LoRA stay as they are."""
    merged = {name.replace(".original_layer.", "."): tensor for name, tensor in state.items()}
    for name in [name for name in state if name.endswith(".original_layer.weight")]:
        layer = name.removesuffix(".original_layer.weight")
        names = (name, f"{layer}.lora.lora_A", f"{layer}.lora.lora_B")
        merged[f"{layer}.weight"] = _with_lora(state, *names)
        del merged[names[1]], merged[names[2]]
    return merged


def _with_lora(state: State, name: str, down: str, up: str) -> Tensor:
    """W (out, in), A (rank, in), B (out, rank) → W + (alpha / rank)·B·A."""
    (wide, narrow), (rank, read), (written, ranks) = (shape_of(state, key, 2) for key in (name, down, up))
    refuse((), (), () if (wide, narrow, rank) == (written, read, ranks) else (down, up))
    tensors = {key: state[key] for key in (name, down, up)}
    check_numbers(tensors, dict.fromkeys(tensors, torch.empty(0)))
    weight, first, second = (tensor.float() for tensor in tensors.values())
    return weight + ALPHA / rank * (second @ first)


def _adapted(name: str, tensor: Tensor) -> Iterable[tuple[str, Any]]:
    """One of our tensors as upstream keeps it: some have a LoRA beside them."""
    for theirs, ours in _NAMES:
        name = name.replace(ours, f"base_model.{theirs}")
    layer, _, kind = name.rpartition(".")
    if not layer.endswith(_ADAPTED):
        return [(name, tensor)]
    parts = [(f"{layer}.original_layer.{kind}", tensor)]
    if kind == "weight":
        down = torch.empty(RANK, tensor.shape[1])
        nn.init.kaiming_uniform_(down, math.sqrt(5), generator=torch.Generator().manual_seed(0))  # as upstream draws it
        parts += [(f"{layer}.lora.lora_A", down), (f"{layer}.lora.lora_B", torch.zeros(len(tensor), RANK))]
    return parts


SPEC = DetectorSpec(
    name="dda",
    title="DDA",
    config=DDAConfig,
    build=DDA,
    views=lambda config: CentreCrop(config.side),
    recognises=recognises,
    halve=halve_backbone,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    averages=True,
    read=read,
    to_upstream=to_content,
)
