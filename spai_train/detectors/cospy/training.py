"""How CO-SPY is trained (upstream `train.py` and `train.sh`): each branch alone and then the fusion, or all end to end.

The tower and the VAE stay as they are. Each stage leaves a whole detector: where one branch was trained alone, the
fusion passes on its logit.
"""

import torch
from torch import nn
from torch.nn.init import kaiming_normal_, normal_

from spai_runtime.errors import UserError
from spai_train.detectors.cospy.artifact import SIDE, Reconstruction
from spai_train.detectors.cospy.model import BRANCHES, Branch, CoSpy
from spai_train.detectors.spec import Stage, Start, Training
from spai_train.models.pretrained import load_pretrained
from spai_train.models.vae import load_vae
from spai_train.published import CLIP_OPENAI, SIGLIP_WEBLI, VAE_SD14
from spai_train.tensors import CheckpointError

SPREAD = 0.02  # standard deviation of the first weights of every linear layer

# Of the variant with a VAE, and of the one without: what is added to the first weights of the fusion; and its first
# bias, below which a penalty keeps it from falling.
SHIFT, FLOOR = (0.5, 0.0), (2.0, 0.0)


def first_weights(model: CoSpy, start: Start) -> None:
    """Draws the first weights as upstream does, and loads the tower and the VAE.

    :raises CheckpointError: one of them is not given, or does not fit
    """
    residual = model.encoder.artifacts.residual
    tower = SIGLIP_WEBLI if isinstance(residual, Reconstruction) else CLIP_OPENAI
    if start.initial != "upstream" or start.pretrained is None:
        raise CheckpointError(f"cospy starts from a frozen tower: give --pretrained FILE, {tower.described}")
    if isinstance(residual, Reconstruction):
        if start.vae is None:
            raise CheckpointError(
                f"cospy looks at what a VAE does not give back: give --vae FILE, {VAE_SD14.described}"
            )
        load_vae(residual.vae, start.vae)
    elif start.vae is not None:
        raise CheckpointError("the variant of cospy with model.vae=null has no VAE: leave --vae out")
    load_pretrained(model.encoder.backbone, start.pretrained)
    _draw(*model.encoder.artifacts.learned, model.head)


@torch.no_grad()
def begin_branch(model: CoSpy, branch: Branch) -> None:
    """Draws one branch, which alone learns and answers: its linear layer, and the network if it is `artifact`.

    :raises UserError: see `_alone`
    """
    network = model.encoder.artifacts.learned if branch == "artifact" else ()
    _alone(model, model.head.get_submodule(branch), *network)
    model.branches = (branch,)
    fusion = model.head.fusion
    fusion.weight.copy_(torch.tensor([[float(one == branch) for one in BRANCHES]]))
    fusion.bias.zero_()


@torch.no_grad()
def begin_fusion(model: CoSpy) -> None:
    """Draws the layer that joins the logits of both branches, which alone learns.

    The branches' BatchNorms use the statistics of each batch, as in all that upstream trains; stored ones stay.

    :raises UserError: see `_alone`
    """
    fusion, without_vae = model.head.fusion, model.config.vae is None
    _alone(model, fusion)
    fusion.weight += SHIFT[without_vae]
    fusion.bias.fill_(FLOOR[without_vae])
    model.floor = FLOOR[without_vae]
    for module in model.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0


def _alone(model: CoSpy, *parts: nn.Module) -> None:
    """Draws these parts, and leaves gradients to them alone.

    :raises UserError: the detector is one that is trained end to end
    """
    if model.config.end_to_end:
        raise UserError("a cospy with model.end_to_end=true is trained end to end: leave stage out, or set it to false")
    _draw(*parts)
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


def _draw(*parts: nn.Module) -> None:
    """Draws normal weights (convolutions: He et al., ICCV 2015, over the outputs), biases and norms as torch does."""
    for layer in (layer for part in parts for layer in part.modules()):
        if isinstance(layer, nn.Conv2d):
            kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            layer.reset_parameters()
            normal_(layer.weight, std=SPREAD)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


TRAINING = Training(
    first_weights,
    "encoder.backbone",
    skips=True,  # in some steps of an end-to-end training one branch has no gradient
    stages={
        "semantic": Stage(lambda model: begin_branch(model, "semantic"), side=lambda config: config.side),
        "artifact": Stage(lambda model: begin_branch(model, "artifact"), side=lambda _: SIDE),
        "fusion": Stage(begin_fusion, side=lambda config: config.side, beside=lambda _: SIDE),
    },
    vae=True,
)
