"""The vision towers of CLIP and SigLIP, in timm's names, from the layouts in which their weights are published."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spai_train.tensors import CheckpointError, State

Rename = Sequence[tuple[str, str]]  # pattern of a name's beginning → timm's; the first that matches counts

# OpenAI's own (openai/CLIP, clip/model.py) and OpenCLIP's.
_OPENAI: Rename = (
    (r"conv1\.", "patch_embed.proj."),
    (r"class_embedding$", "cls_token"),
    (r"positional_embedding$", "pos_embed"),
    (r"ln_pre\.", "norm_pre."),
    (r"ln_post\.", "norm."),
    (r"proj$", "head.weight.T"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"transformer\.resblocks\.(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
)

# That of transformers (`CLIPVisionTransformer`), where q, k and v are layers of their own.
_TRANSFORMERS: Rename = (
    (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"embeddings\.class_embedding$", "cls_token"),
    (r"embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"embeddings\.position_ids$", "head.position_ids"),
    (r"pre_layrnorm\.", "norm_pre."),
    (r"post_layernorm\.", "norm."),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"blocks.\1.norm\2."),
    (r"encoder\.layers\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
)

# OpenCLIP's, of a tower that it takes from timm, as it does SigLIP's.
_TIMM: Rename = ((r"", ""),)

# Prefix of the tower's names → its layout; the first that a tensor has counts.
LAYOUTS: Mapping[str, Rename] = {"visual.trunk.": _TIMM, "visual.": _OPENAI, "vision_model.": _TRANSFORMERS}
_PROJECTION = "visual_projection.weight"  # transformers has it outside of the tower


def visual_tower(state: State) -> dict[str, Tensor]:
    """The vision tower in timm's names, CLIP's projection as `head.weight` (features, C); the text tower is left out.

    :param state: tensors in OpenAI's, OpenCLIP's, transformers' or timm's names; other names stay as they are
    :raises CheckpointError: the tower has tensors that are in no layout
    """
    for prefix, rename in LAYOUTS.items():
        tower = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if tower:
            named = {_timms(name, rename): tensor for name, tensor in tower.items()}
            projection = {"head.weight": state[_PROJECTION]} if _PROJECTION in state else {}
            return _with_axes(_joined(named | projection))
    return dict(state)


def _timms(name: str, rename: Rename) -> str:
    for pattern, replacement in rename:
        found, times = re.subn(f"^{pattern}", replacement, name)
        if times:
            return found
    raise CheckpointError(f"the tower has a tensor {name}, which is in no layout that is known")


def _joined(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tower with q, k and v of each block joined into one layer."""
    queries = [name for name in tower if re.search(r"\.attn\.q\.", name)]
    for query in queries:
        parts = [query.replace(".q.", f".{part}.") for part in "qkv"]
        if all(part in tower for part in parts):
            tower[query.replace(".q.", ".qkv.")] = torch.cat([tower.pop(part) for part in parts])
    return tower


def _with_axes(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLS token (C,) → (1, 1, C), positions (1 + L, C) → (1, 1 + L, C), projection (C, features) → (features, C)"""
    if (projection := tower.pop("head.weight.T", None)) is not None:
        tower["head.weight"] = projection.transpose(0, -1)
    for name, missing in (("cls_token", 2), ("pos_embed", 1)):
        if name in tower and tower[name].ndim == 3 - missing:
            tower[name] = tower[name].reshape((1,) * missing + tower[name].shape)
    return tower
