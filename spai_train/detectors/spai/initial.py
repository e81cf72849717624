"""The first weights of a SPAI, up to a pre-trained backbone."""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from spai_train.detectors.spai.model import SPAI
from spai_train.detectors.spai.pretraining import check_backbone
from spai_train.detectors.spec import Start
from spai_train.models.pretrained import load_pretrained
from spai_train.models.whitening import scale_by_fan_in

Scheme = Literal["upstream", "fan_in"]


def first_weights(model: SPAI, start: Start) -> None:
    """Draws by a scheme: `upstream` is the published one; `fan_in` draws linear layers from N(0, 1/fan_in); `whitened`
    also sets the patch embedding to whiten patches of real training images (see `whitening`). A pre-trained backbone is
    loaded last.

    :raises CheckpointError: a file does not fit
    """
    initialise(model, "upstream" if start.initial == "upstream" else "fan_in")
    if start.initial == "whitened":
        from spai_train.training.start import whiten  # noqa: PLC0415  with all that reads training images

        whiten(model.encoder, model.encoder.backbone, start.images(), start.seed)
    if start.pretrained is not None:
        if model.encoder.backbone.family.masked_frequency and start.pretrained != "timm":
            check_backbone(model.config, Path(start.pretrained))
        load_pretrained(model.encoder.backbone, start.pretrained)


def initialise(model: SPAI, scheme: Scheme) -> None:
    """Draws the weights anew, from torch's random numbers; what a scheme does not name keeps what it has.

    :param scheme: `upstream` is the published one (`sid.py`); `fan_in` draws the linear layers behind the backbone from
        N(0, 1/fan_in), with which a few hundred steps get somewhere
    """
    if scheme == "upstream":
        _initialise_as_upstream(model)
        return
    for module in (model.encoder.projectors, model.encoder.context, model.head):
        scale_by_fan_in(module)


@torch.no_grad()
def _initialise_as_upstream(model: SPAI) -> None:
    """N(0, 0.02²) for linear layers and learned tokens, Xavier for the patch embedding, N(0, 1) for alpha, biases 0.

    Upstream draws the masked-frequency backbone as well ("all"), and so loses the depth scaling that it was built with;
    CLIP and DINOv2 keep their weights ("local").
    """
    encoder, backbone = model.encoder, model.encoder.backbone
    modules = [encoder.projectors, encoder.context, model.head]
    if model.config.backbone == "mfm":
        modules.append(backbone)
        for token in (backbone.cls_token, backbone.pos_embed):
            nn.init.trunc_normal_(token, std=0.02)
    for module in modules:
        module.apply(_initialise_layer)
    nn.init.trunc_normal_(model.head.queries, std=0.02)
    nn.init.normal_(encoder.context.alpha)


def _initialise_layer(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.xavier_uniform_(layer.weight)
    elif isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    elif isinstance(layer, nn.LayerNorm):
        nn.init.ones_(layer.weight)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
