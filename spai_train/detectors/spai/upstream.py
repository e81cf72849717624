"""Upstream's vocabulary: names, shapes and settings of mever-team/spai's checkpoints, and ours, both ways."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spai_train.detectors.spai.config import SPAIConfig, ratio_of
from spai_train.detectors.spai.model import SPAI
from spai_train.detectors.spai.spectral import disc_mask
from spai_train.detectors.spai.unused import unused_tensors
from spai_train.models.pretrained import UNUSED, match, split
from spai_train.models.vit import FAMILIES, BackboneName
from spai_train.tensors import CheckpointError, Content, State, dimensions, shape_of

# Our names on the left, upstream's on the right; a projector's Linear layers are every third of its Sequential.
_RENAMED = (
    (r"^encoder\.backbone\.", "mfvit.vit."),
    (r"^encoder\.projectors\.", "mfvit.features_processor.patch_projector.projectors."),
    (r"^encoder\.context\.", "mfvit.features_processor.original_features_processor."),
    (r"\.project_blocks\.", ".proj1."),
    (r"\.project_image\.", ".proj2."),
    (r"\.norm_in\.", ".norm1."),
    (r"\.norm_out\.", ".norm2."),
    (r"\.layers\.(\d+)\.", lambda match: f".projector.{3 * int(match[1]) + 1}."),
    (r"^head\.mlp\.(\d+)\.", lambda match: f"cls_head.head.{3 * int(match[1])}."),
    (r"^head\.queries$", "patch_aggregator"),
    (r"^head\.to_out\.", "to_out.0."),
    (r"^head\.", ""),
)

# Tensors that upstream creates and never reads when it detects.
_UNUSED = rf"mfvit\.(frequencies_mask$|vit\.({UNUSED}))"


def recognises(state: State) -> bool:
    """Whether these are tensors of a SPAI, under upstream's names or ours."""
    return any(name.startswith(("mfvit.", "encoder.projectors.")) for name in state)


def read(content: Content) -> tuple[SPAIConfig, State]:
    """The dimensions and our tensors of upstream's `.pth`, or of a bare state dict under upstream's names or ours.

    :raises CheckpointError: names the tensors that are missing, left over, or of another shape
    """
    state = content.state
    if not any(name.startswith("mfvit.") for name in state):
        return infer_ours(state), state
    config = infer_config(state, content.settings)
    return config, from_upstream(state, config)


def to_content(model: SPAI) -> dict[str, Any]:
    """What torch.save must write for upstream's `--model` and `--pretrained`; its config is a plain dict."""
    state = to_upstream(model.state_dict(), model.config)
    return {"model": state, "epoch": 0, "config": upstream_settings(model.config)}


def upstream_name(name: str) -> str:
    """Our name of a tensor → upstream's."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def to_upstream(state: State, config: SPAIConfig) -> dict[str, Tensor]:
    """Our state dict → upstream's, with all that its strict loading wants.

    It also wants the mask, which upstream keeps among its parameters, and tensors that it never reads. Our state dict
    has none of these, even if it came from a file that had them; they are written as upstream draws them.

    :raises CheckpointError: upstream's layout has no place for this backbone
    """
    if config.backbone != "mfm":
        raise CheckpointError(f"upstream's layout has no place for a {config.backbone} backbone; write .safetensors")
    mask = torch.from_numpy(disc_mask(config.tile_size, config.mask_radius)).long()
    return {"mfvit.frequencies_mask": mask, **_renamed(state), **unused_tensors(config)}


def _renamed(state: State) -> dict[str, Tensor]:
    return dict(part for name, tensor in state.items() for part in split(name, tensor, upstream_name))


def from_upstream(state: State, config: SPAIConfig) -> dict[str, Tensor]:
    """Upstream's state dict → ours.

    :raises CheckpointError: names the tensors that are missing, left over, or of another shape
    """
    _check_mask(state, config)
    with torch.device("meta"):
        expected = SPAI(config).state_dict()
    return match(state, expected, upstream_name, _UNUSED)


def infer_config(state: State, settings: Mapping[str, Any]) -> SPAIConfig:
    """Dimensions from the shapes of upstream's tensors; the embedded configuration tells what shapes cannot.

    :param settings: upstream's configuration as nested mappings; empty for a bare state dict, whose ViT heads are
        taken to be 64 wide and whose blocks are taken to be all in use
    """
    projector = "mfvit.features_processor.patch_projector.projectors"
    vit, model = _section(settings, "MODEL", "VIT"), _section(settings, "MODEL")
    width, _, patch_size, _ = shape_of(state, "mfvit.vit.patch_embed.proj.weight", 4)
    depth, used = _count(state, r"mfvit\.vit\.blocks\.(\d+)\."), _count(state, projector + r"\.(\d+)\.")
    tile_size = math.isqrt(shape_of(state, "mfvit.vit.pos_embed", 3)[1] - 1) * patch_size
    heads, _, head_width = shape_of(state, "patch_aggregator", 3)
    blocks = vit.get("INTERMEDIATE_LAYERS", range(used))
    values = {
        "tile_size": tile_size,
        "tile_stride": _section(settings, "MODEL", "PATCH_VIT").get("PATCH_STRIDE", tile_size),
        "mask_radius": _mask_radius(state, settings),
        "patch_size": patch_size,
        "width": width,
        "depth": depth,
        "heads": vit.get("NUM_HEADS", max(1, width // 64)),
        "mlp_ratio": ratio_of(shape_of(state, "mfvit.vit.blocks.0.mlp.fc1.weight", 2)[0], width),
        "blocks": list(blocks) if isinstance(blocks, range) else blocks,
        "projection": shape_of(state, f"{projector}.0.norm2.weight", 1)[0],
        "projection_layers": _count(state, projector + r"\.0\.projector\.(\d+)\."),
        "projection_gelu": _section(settings, "MODEL", "FRE").get("PROJECTOR_LAST_LAYER_ACTIVATION_TYPE") == "gelu",
        "attention_width": heads * head_width,
        "attention_heads": heads,
        "dropout": model.get("SID_DROPOUT", SPAIConfig.dropout),
        "drop_path": model.get("DROP_PATH_RATE", SPAIConfig.drop_path),
    }
    config = _config(values)
    if len(config.blocks) != used or (not vit and used != depth):
        raise CheckpointError(f"the checkpoint projects {used} of {depth} blocks and does not say which")
    return _config({**values, "head_ratio": shape_of(state, "cls_head.head.0.weight", 2)[0] // config.features})


def _config(values: Mapping[str, Any]) -> SPAIConfig:
    """:raises CheckpointError: there is no model of these dimensions"""
    if not values["heads"]:  # which would be the published number
        raise CheckpointError("the checkpoint's configuration makes no model: NUM_HEADS is not given")
    return dimensions(values, SPAIConfig)


def infer_ours(state: State) -> SPAIConfig:
    """Dimensions of a bare state dict in our names; tensors that only one family of backbones has tell the family."""
    config = infer_config(_renamed(state), {})
    names = {name.removeprefix("encoder.backbone."): tensor for name, tensor in state.items()}
    if "norm_pre.weight" in names:
        return replace(config, backbone="clip")
    return replace(config, backbone=_dinov2(names, config)) if "blocks.0.ls1.gamma" in names else config


def _dinov2(names: State, config: SPAIConfig) -> BackboneName:
    """Which DINOv2 it is: only the giant has two layers side by side in an MLP; base and large differ in size."""
    if shape_of(names, "blocks.0.mlp.fc1.weight", 2)[0] == 2 * shape_of(names, "blocks.0.mlp.fc2.weight", 2)[1]:
        return "dinov2_vitg14"
    large = FAMILIES["dinov2_vitl14"]
    return "dinov2_vitl14" if (config.width, config.depth) == (large.width, large.depth) else "dinov2"


def _mask_radius(state: State, settings: Mapping[str, Any]) -> Any:
    """The radius from the configuration, else from the mask itself, whose central row is 2 · radius wide."""
    radius = _section(settings, "MODEL", "FRE").get("MASKING_RADIUS")
    mask = _mask(state)
    if radius is None and mask is not None:
        radius = float(mask[mask.shape[0] // 2].sum()) // 1 / 2
    return SPAIConfig.mask_radius if radius is None else radius


def _check_mask(state: State, config: SPAIConfig) -> None:
    """Refuses a mask that is not the disc, since detection would silently use the disc in its place."""
    mask = _mask(state)
    if mask is not None and not torch.equal(mask, torch.from_numpy(disc_mask(config.tile_size, config.mask_radius))):
        raise CheckpointError(f"the checkpoint's frequency mask is not a disc of radius {config.mask_radius:g}")


def _mask(state: State) -> Tensor | None:
    """The mask that upstream keeps among its parameters, (S, S) float64, where it is there."""
    mask = state.get("mfvit.frequencies_mask")
    if mask is None:
        return None
    if mask.is_complex() or mask.dim() != 2 or not 0 < mask.shape[0] == mask.shape[1]:
        raise CheckpointError("the checkpoint's frequency mask is no square of real numbers")
    return mask.double()


def upstream_settings(config: SPAIConfig) -> dict[str, Any]:
    """The part of upstream's configuration that describes the model, under upstream's names."""
    return {
        "DATA": {"IMG_SIZE": config.tile_size},
        "MODEL": {
            "SID_DROPOUT": config.dropout,
            "DROP_PATH_RATE": config.drop_path,
            "VIT": {
                **vit_settings(config),
                "INTERMEDIATE_LAYERS": list(config.blocks),
                "PROJECTION_DIM": config.projection,
                "PROJECTION_LAYERS": config.projection_layers,
            },
            "FRE": {
                "MASKING_RADIUS": config.mask_radius,
                "PROJECTOR_LAST_LAYER_ACTIVATION_TYPE": "gelu" if config.projection_gelu else None,
            },
            "PATCH_VIT": {
                "PATCH_STRIDE": config.tile_stride,
                "NUM_HEADS": config.attention_heads,
                "ATTN_EMBED_DIM": config.attention_width,
                "MINIMUM_PATCHES": config.minimum_tiles,
            },
            "CLS_HEAD": {"MLP_RATIO": config.head_ratio},
        },
    }


def vit_settings(config: SPAIConfig) -> dict[str, Any]:
    """The part of upstream's configuration that describes the backbone."""
    return {
        "PATCH_SIZE": config.patch_size,
        "EMBED_DIM": config.width,
        "DEPTH": config.depth,
        "NUM_HEADS": config.heads,
        "MLP_RATIO": config.mlp_ratio,
    }


def _section(settings: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for name in path:
        settings = settings.get(name, {})
        if not isinstance(settings, Mapping):
            raise CheckpointError(
                f"the checkpoint's configuration has a {type(settings).__name__} as {name}, no section"
            )
    return settings


def _count(state: State, pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})
