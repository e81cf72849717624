"""Pre-trained backbones: masked frequency modelling in upstream's layout, CLIP and DINOv2 in timm's names."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor

from spai_train.models.clip import visual_tower
from spai_train.models.positions import resample_positions
from spai_train.models.vit import Backbone, Family
from spai_train.tensors import CheckpointError, State, check_numbers, exact, first_line, misshapen, read, refuse

# Tensors of a pre-training that a detector never reads: its classifier or projection, and DINO's mask. The final norm
# goes too, unless the backbone has one.
_HEADS = re.compile(r"(head|fc_norm|norm)\.|mask_token$")

# Tensors that upstream's ViT creates and nobody reads who takes its patch tokens.
UNUSED = r"(cls_pos_embed|actual_cls_token)$|(cls_blocks|cls_norm|fc_norm|norm|intermediate_fc_norm|head)\."

Rename = Callable[[str], str]


def load_pretrained(backbone: Backbone, source: str | Path) -> None:
    """Loads a pre-trained ViT into a backbone of the same family and dimensions.

    :param source: masked frequency modelling: the `.pth` of upstream or of `save_pretrained`, keys under `encoder.`;
        all others: a state dict in timm's names, `.pth` or `.safetensors`, or `timm`, which downloads it; CLIP's also
        in OpenAI's, OpenCLIP's and transformers' names
    :raises CheckpointError: tensors are missing, left over, or of another shape; or nothing could be downloaded
    """
    if str(source) == "timm":
        backbone.load_state_dict(_fit(_download(backbone.family), backbone))
        return
    state = read(Path(source)).state
    if not backbone.family.masked_frequency:
        backbone.load_state_dict(_fit(visual_tower(state), backbone))
        return
    encoder = encoder_of(state, source)
    backbone.load_state_dict(match(encoder, backbone.state_dict(), "encoder.{}".format, rf"encoder\.({UNUSED})"))


def encoder_of(state: State, source: str | Path) -> dict[str, Tensor]:
    """The backbone's tensors among those of a masked-frequency pre-training, which are under `encoder.`.

    :raises CheckpointError: there are none
    """
    encoder = {name: tensor for name, tensor in state.items() if name.startswith("encoder.")}
    if not encoder:
        raise CheckpointError(f"{source} holds no tensor under `encoder.`: it is not a masked-frequency pre-training")
    return encoder


def match(state: State, expected: State, rename: Rename, unused: str) -> dict[str, Tensor]:
    """The tensors that `expected` names, out of `state` in a layout of upstream's: none is missing or left over.

    :param rename: our name of a tensor → the layout's
    :param unused: a pattern of the layout's names that may be left over
    :raises CheckpointError: names the tensors that are missing, left over, of another shape, or no finite numbers
    """
    parts = {name: dict(split(name, tensor, rename)) for name, tensor in expected.items()}
    wanted = {theirs: part for of_one in parts.values() for theirs, part in of_one.items()}
    over = [name for name in state if name not in wanted and not re.match(unused, name)]
    wrong = {*misshapen({name: tensor for name, tensor in state.items() if name in wanted}, wanted)}
    refuse(wanted.keys() - state.keys(), over, [name for name, of_one in parts.items() if wrong & of_one.keys()])
    check_numbers({name: state[name] for name in wanted}, wanted)
    return {name: _join([state[theirs] for theirs in of_one]) for name, of_one in parts.items()}


def split(name: str, tensor: Tensor, rename: Rename) -> list[tuple[str, Tensor]]:
    """One of our tensors as upstream keeps it: there is no bias on k, since softmax would cancel it.

    :raises CheckpointError: a tensor that should hold three biases does not
    """
    if not name.endswith("attn.qkv.bias"):
        return [(rename(name), tensor)]
    refuse((), (), [name] if tensor.dim() != 1 or not len(tensor) or len(tensor) % 3 else ())
    query, _, value = tensor.chunk(3)
    prefix = rename(name).removesuffix("qkv.bias")
    return [(f"{prefix}q_bias", query), (f"{prefix}v_bias", value)]


def _join(parts: list[Tensor]) -> Tensor:
    """The inverse of `split`, in fp32."""
    if len(parts) == 2:
        parts = [parts[0], torch.zeros_like(parts[0]), parts[1]]
    return torch.cat(parts).float() if len(parts) > 1 else parts[0].float()


def _fit(state: State, backbone: Backbone) -> dict[str, Tensor]:
    """A state dict in timm's names, made to fit the backbone: without heads, positions resampled to its tokens."""
    expected = backbone.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in expected or not _HEADS.match(name)}
    if "pos_embed" in state and _is_another_grid(state["pos_embed"], expected["pos_embed"]):
        state["pos_embed"] = resample_positions(state["pos_embed"], backbone.patch_embed.grid_size[0])
    return exact(state, expected)


def _is_another_grid(positions: Tensor, expected: Tensor) -> bool:
    """Whether these are positions of another number of tokens, G·G beside CLS, and real numbers."""
    if not (positions.dim() == 3 and positions.is_floating_point() and positions.shape[1] > 1):
        return False
    tokens, alike = positions.shape[1] - 1, positions.shape[::2] == expected.shape[::2]
    return alike and positions.shape[1] != expected.shape[1] and math.isqrt(tokens) ** 2 == tokens


def _download(family: Family) -> dict[str, Tensor]:
    if not family.hub:
        raise CheckpointError("timm has no such pre-training: name the file of one")
    try:
        model = timm.create_model(family.hub, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot download {family.hub} from timm's hub: {first_line(error)}") from error
    return model.state_dict()  # type: ignore[no-any-return]
