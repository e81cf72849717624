"""Corvi2023 (Corvi et al., ICASSP 2023; grip-unina/ClipBased-SyntheticImageDetection): a ResNet-50 at full resolution.

Neither its first convolution nor its pooling skips pixels (upstream's `res50nodown`). It looks at the whole image, and
its logit, a log-likelihood ratio, is a linear layer's on the mean of the last map. GRIP fuses it with ClipDet. That
repository does not say how it was trained, so `fit` does not train it.
"""

import re
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spai_runtime.views import WholeImage, Window
from spai_train.detectors.linear import LinearHead, LinearModel, Pixels
from spai_train.detectors.spec import DetectorSpec
from spai_train.models.half import Half, halve_layers
from spai_train.tensors import Content, State, dimensions, shape_of

DEPTHS = 3, 4, 6, 3  # blocks of each layer of a ResNet-50
STRIDE = 8  # pixels a cell of the last map: three of the four layers halve it
CELLS = 7  # of a patch, along a side

# Pixels around a cell that it depends on: 3 (convolution 7×7), 1 (pooling), and of the 3×3 convolutions of each layer
# 1 pixel times its stride: 3·1, then 1 + 3·2, then 2 + 5·4, then 4 + 2·8. That is a patch of 7 cells.
HALO = 56
SIDE = 616  # of a window, in pixels: the larger, the less is computed twice, and the more memory its first layer takes
WINDOW = Window(SIDE, HALO, CELLS * STRIDE, STRIDE)

_NETWORK = "encoder.network."
_LINEAR = "head.linear."


@dataclass(frozen=True)
class Corvi2023Config:
    """:param width: channels of the first layer's narrow convolutions; the published network has 64"""

    width: Annotated[int, Meta(ge=1, le=1 << 10)] = 64

    @property
    def features(self) -> int:
        """D, the number of channels of the last map."""
        return 32 * self.width


class PatchEncoder(nn.Module):
    """Pixels → a row for each patch of 7×7 cells of the last map: the sum of the cells that exist, divided by 49."""

    def __init__(self, config: Corvi2023Config) -> None:
        super().__init__()
        channels = tuple(config.width << layer for layer in range(4))
        self.network: nn.Module = ResNet(Bottleneck, DEPTHS, num_classes=0, global_pool="", channels=channels)
        self.network.conv1.stride, self.network.maxpool.stride = (1, 1), 1  # of stride 2 in a ResNet-50
        self.pixels = Pixels(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, H, W, 3) uint8
        :returns: (P, D) float32, the patches of one view after the other's, row-major
        """
        cells = self.network(self.pixels(views))  # (N, D, ⌈H/8⌉, ⌈W/8⌉)
        patches = F.avg_pool2d(F.pad(cells, (0, CELLS - 1, 0, CELLS - 1)), CELLS)
        return patches.permute(0, 2, 3, 1).flatten(0, 2)


class Corvi2023(LinearModel):
    """See `DetectorModel`."""

    detector = "corvi2023"
    encoder: PatchEncoder

    def __init__(self, config: Corvi2023Config) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, PatchEncoder(config), LinearHead(config.features)


def halve(encoder: PatchEncoder, dtype: torch.dtype) -> None:
    """Halves the whole network in fp16, and each layer for itself in bf16; the sums over patches stay fp32.

    First, each BatchNorm becomes part of the convolution before it, since an exporter would fold it in half precision.
    """
    _fold_norms(encoder.network.eval())
    if dtype == torch.float16:
        encoder.network = Half(encoder.network, dtype)
    else:
        halve_layers(encoder.network, dtype)


def _fold_norms(module: nn.Module) -> None:
    """Folds BatchNorms into convolutions, in place; a ResNet holds each convolution, and next its BatchNorm."""
    before = ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, before, fuse_conv_bn_eval(module.get_submodule(before), child))  # type: ignore[type-var]
            setattr(module, name, nn.Identity())
        else:
            _fold_norms(child)
            before = name


def recognises(state: State) -> bool:
    """Whether this is upstream's ResNet-50 with one output, or ours."""
    classes = state["fc.weight"].shape[:1] if "fc.weight" in state else None
    theirs = classes == (1,) and "layer3.5.conv3.weight" in state and "layer3.6.conv3.weight" not in state
    return theirs or f"{_NETWORK}layer3.5.conv3.weight" in state


def read(content: Content) -> tuple[Corvi2023Config, State]:
    """Reads upstream's `weights.pth`, or a bare state dict of ours.

    :raises CheckpointError: tensors that tell the dimensions are missing
    """
    state = {_ours(name): tensor for name, tensor in content.state.items()}
    width = shape_of(state, f"{_NETWORK}layer1.0.conv1.weight", 4)[0]
    return dimensions({"width": width}, Corvi2023Config), state


def _ours(name: str) -> str:
    if name.startswith(("encoder.", "head.")):
        return name
    return re.sub(r"^fc\.", _LINEAR, name) if name.startswith("fc.") else _NETWORK + name


def to_upstream(model: Corvi2023) -> dict[str, dict[str, Tensor]]:
    """What torch.save must write for upstream's `load_weights`."""
    state = {name.removeprefix(_NETWORK).replace(_LINEAR, "fc."): t for name, t in model.state_dict().items()}
    return {"model": state}


SPEC = DetectorSpec(
    name="corvi2023",
    title="Corvi2023",
    config=Corvi2023Config,
    build=Corvi2023,
    views=lambda _: WholeImage(window=WINDOW),
    recognises=recognises,
    halve=halve,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    read=read,
    to_upstream=to_upstream,
)
