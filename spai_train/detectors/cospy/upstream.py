"""The files of CO-SPY's authors: three of a fused detector in a folder, or one of a detector trained end to end."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spai_train.detectors.class_token import BACKBONE
from spai_train.detectors.cospy.artifact import WIDTH
from spai_train.detectors.cospy.config import CoSpyConfig
from spai_train.published import CLIP_OPENAI, SIGLIP_WEBLI, PublishedFile
from spai_train.tensors import Content, State, dimensions, shape_of

ARTIFACTS, VAE = "encoder.artifacts.", "encoder.artifacts.residual.vae."

# Part of a checkpoint → where upstream has its file in a folder: as it publishes them, and as its training writes them.
FILES = {part: (f"{part}_weights.pth", f"{part}/best_model.pth") for part in ("semantic", "artifact", "fusion")}

# Beginning of upstream's name → ours; the first that matches counts. The first three are of a folder's files.
_NAMES = (
    (r"artifact\.artifact_encoder\.", ARTIFACTS),
    (r"(semantic|artifact|fusion)\.fc\.", r"head.\1."),
    (r"art_encoder\.", ARTIFACTS),
    (r"sem_fc\.", "head.semantic."),
    (r"art_fc\.", "head.artifact."),
    (r"classifier\.", "head.fusion."),
)
_OURS = {f"head.{part}.weight" for part in FILES}
# A layer that upstream's ProGAN variant has and does not run; what CLIP has beside its projection: in transformers the
# numbers of its positions, in timm a bias of 0.
_NOT_READ = re.compile(r"encoder\.artifacts\.fc1\.|encoder\.backbone\.head\.(position_ids|bias)$")


def recognises(state: State) -> bool:
    """Whether these are tensors of upstream, in one file or of a folder, or ours."""
    return {_renamed(name) for name in state} >= _OURS | {f"{ARTIFACTS}conv1.weight"}


def tower(state: State) -> PublishedFile:
    """The weights of the tower that belongs to a checkpoint's variant."""
    return SIGLIP_WEBLI if _has_vae({_renamed(name): tensor for name, tensor in state.items()}) else CLIP_OPENAI


def read(content: Content) -> tuple[CoSpyConfig, State]:
    """Reads upstream's folder or its one file, with the tower; or a bare state dict of ours.

    :raises CheckpointError: tensors that tell the dimensions are missing
    """
    renamed = {_renamed(name): tensor for name, tensor in content.state.items()}
    state = {name: tensor for name, tensor in renamed.items() if not _NOT_READ.match(name)}
    width = shape_of(state, f"{BACKBONE}patch_embed.proj.weight", 4)[0]
    depth = sum(name.startswith(f"{BACKBONE}blocks.") and name.endswith(".attn.qkv.weight") for name in state)
    sizes: dict[str, Any] = {"width": width, "depth": depth, "vae": None}
    if _has_vae(state):
        sizes["vae"] = _vae(state)
    else:
        sizes["projection"] = shape_of(state, f"{BACKBONE}head.weight", 2)[0]
    end_to_end = shape_of(state, "head.fusion.weight", 2)[1] != 2
    return dimensions({**sizes, "end_to_end": end_to_end}, CoSpyConfig), state


def to_upstream(model: Any) -> dict[str, dict[str, Tensor]]:
    """What torch.save must write for upstream's strict loading: the parts of the one file of a detector that was
    trained end to end, or the three files of a fused one. The tower, which upstream downloads, is in none of them.

    :param model: a `CoSpy`
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    encoder = _below(ARTIFACTS, {name.replace(VAE, f"{ARTIFACTS}vae."): tensor for name, tensor in state.items()})
    if not _has_vae(state):
        encoder |= {"fc1.weight": torch.zeros(1, WIDTH), "fc1.bias": torch.zeros(1)}  # which nothing runs
    semantic, artifact, fusion = (_below(f"head.{part}.", state) for part in FILES)
    if model.config.end_to_end:
        return {"sem_fc": semantic, "art_fc": artifact, "art_encoder": encoder, "classifier": fusion}
    branch = _above("artifact_encoder.", encoder) | _above("fc.", artifact)
    return {"semantic": _above("fc.", semantic), "artifact": branch, "fusion": _above("fc.", fusion)}


def _below(prefix: str, state: State) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, under names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _above(prefix: str, state: State) -> dict[str, Tensor]:
    """All tensors, under names with a prefix."""
    return {prefix + name: tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    """Upstream's name of a tensor → ours; ours stays."""
    for theirs, ours in _NAMES:
        found, times = re.subn(f"^{theirs}", ours, name)
        if times:
            name = found
            break
    return name.replace(f"{ARTIFACTS}vae.", VAE)


def _has_vae(state: State) -> bool:
    return any(name.startswith(VAE) for name in state)


def _vae(state: State) -> Mapping[str, Any]:
    """The `VAEConfig` that tensors tell."""
    block = re.compile(re.escape(VAE) + r"encoder\.down_blocks\.(\d{1,3})\.resnets\.(\d{1,3})\.conv1\.weight$")
    found = [(int(one[1]), int(one[2])) for one in map(block.match, state) if one]
    scales, layers = (1 + max(numbers) for numbers in zip((0, 0), *found, strict=True))
    widths = [
        shape_of(state, f"{VAE}encoder.down_blocks.{scale}.resnets.0.conv1.weight", 4)[0] for scale in range(scales)
    ]
    return {"widths": widths, "layers": layers, "latent": shape_of(state, f"{VAE}post_quant_conv.weight", 4)[0]}
