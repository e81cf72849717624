"""What a file of masked-frequency pre-training says of its backbone, for `fit` to build the same one."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spai_train.detectors.spai.config import SPAIConfig, ratio_of
from spai_train.models.pretrained import encoder_of
from spai_train.tensors import CheckpointError, read, shape_of

WEIGHED = "tile_size", "patch_size", "width", "depth", "heads", "mlp_ratio"  # what weights fit in one way alone


def backbone_of(path: Path) -> dict[str, Any]:
    """Keys of a recipe's `model` → their values in a file that `pretrain` or MFM wrote.

    Tensors say most of them; `heads` and `mask_radius` stand where the configuration beside them does, in MFM's names.

    :raises CheckpointError: it cannot be read, or it is no masked-frequency pre-training
    """
    content = read(path)
    state = encoder_of(content.state, path)
    width, _, patch_size, _ = shape_of(state, "encoder.patch_embed.proj.weight", 4)
    depth = len({match[1] for name in state if (match := re.match(r"encoder\.blocks\.(\d+)\.", name))})
    found = {
        "tile_size": math.isqrt(max(shape_of(state, "encoder.pos_embed", 3)[1] - 1, 0)) * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": depth,
        "mlp_ratio": ratio_of(shape_of(state, "encoder.blocks.0.mlp.fc1.weight", 2)[0], width),
    }
    written = {"heads": ("MODEL", "VIT", "NUM_HEADS"), "mask_radius": ("DATA", "MASK_RADIUS1")}
    said = {key: _number(content.settings, *names) for key, names in written.items()}
    return found | {key: value for key, value in said.items() if value is not None}


def dimensions_of(model: Mapping[str, Any], pretrained: str) -> dict[str, Any]:
    """See `dimensions_of` of `Training`.

    :raises CheckpointError: see `backbone_of`
    """
    masked_frequency = model.get("backbone", "mfm") == "mfm" and pretrained != "timm"
    return backbone_of(Path(pretrained)) if masked_frequency else {}


def check_backbone(config: SPAIConfig, path: Path) -> None:
    """:raises CheckpointError: the file holds a backbone of other dimensions, which it names"""
    found = backbone_of(path)
    wrong = [key for key in WEIGHED if key in found and found[key] != getattr(config, key)]
    if not wrong:
        return
    theirs = ", ".join(f"{key} {found[key]:g}" for key in wrong)
    ours = ", ".join(f"{key} {getattr(config, key):g}" for key in wrong)
    keys = ", ".join(f"model.{key}" for key in wrong)
    beside = path.with_name("recipe.yaml")
    source = f", or set what {beside} has" if beside.is_file() else ""
    raise CheckpointError(
        f"{path} does not fit the recipe: its backbone has {theirs}, and the recipe has {ours}; leave {keys} "
        f"out of the recipe{source}"
    )


def _number(settings: Mapping[str, Any], *names: str) -> float | None:
    """The number above 0 that nested mappings hold under these names, if there is one."""
    value: Any = settings
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
