"""A linear probe: a frozen model of timm, any of them, whose features a linear layer reads.

There is no upstream: `spai-train probe` makes its checkpoints, and their header says all that rebuilds the model.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from spai_runtime.errors import UserError
from spai_runtime.images import Filter
from spai_runtime.manifest import LARGEST_FEATURES
from spai_runtime.views import CentreCrop, Resize
from spai_train.detectors.linear import LinearHead, LinearModel, Pixels
from spai_train.detectors.spec import DetectorSpec, Start, Training
from spai_train.models.half import Half, halve_blocks, halve_layers
from spai_train.models.registered import build, load_weights, preprocessing, width

SMALLEST_NORM = 1e-12  # that features are divided by, as torch.nn.functional.normalize has it

Side = Annotated[int, Meta(ge=1, le=2048)]
Deviation = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class ProbeConfig:
    """The dimensions of a probe; the defaults are what timm says of its `convnext_tiny`.

    :param backbone: The encoder is the model of timm of this name.
    :param features: The encoder gives so many features.
    :param side: A view has sides of so many pixels, and is cropped from the middle.
    :param resize: Before that, the image is resized to so many pixels, which `rule` explains.
    :param rule: `resize` is the length of the image's shorter side (`shorter`) or of both sides (`square`).
    :param interpolation: The resize interpolates by this filter of Pillow.
    :param mean: This is taken from each channel, of values from 0 to 1.
    :param std: Each channel is divided by this, of values from 0 to 1.
    :param normalised: If this is true, features are divided by their L2 norm.
    """

    backbone: Annotated[str, Meta(max_length=255)] = "convnext_tiny"
    features: Annotated[int, Meta(ge=1, le=LARGEST_FEATURES)] = 768
    side: Side = 224
    resize: Side = 235
    rule: Literal["shorter", "square"] = "shorter"
    interpolation: Filter = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    normalised: bool = False

    def __post_init__(self) -> None:
        found = width(self.backbone, self.side)
        if found != self.features:
            raise ValueError(f"{self.backbone} gives {found} features, not {self.features}")

    @classmethod
    def of(cls, backbone: str, *, normalised: bool = False) -> "ProbeConfig":
        """The dimensions of a model of timm, with the views that timm evaluates it on.

        :raises BackboneError: timm does not have it, or it cannot be a backbone
        """
        return cls(backbone, **asdict(preprocessing(backbone)), normalised=normalised)


class FrozenEncoder(nn.Module):
    """Pixels → the features that the model gives to its classifier."""

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__()
        self.pixels = Pixels(config.mean, config.std)
        self.backbone = build(config.backbone)
        _write_out_attention(self.backbone)
        self.normalised = config.normalised

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: (N, D) float32
        """
        features: Tensor = self.backbone(self.pixels(views))
        if self.normalised:
            features = features / features.square().sum(dim=1, keepdim=True).sqrt().clamp_min(SMALLEST_NORM)
        return features


class Probe(LinearModel):
    """See `DetectorModel`."""

    detector = "probe"

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, FrozenEncoder(config), LinearHead(config.features)


def first_weights(model: Any, start: Start) -> None:
    """Loads the backbone's weights, where there are any; else they stay as they were drawn.

    :raises UserError: the weights do not fit, or are to be drawn otherwise than timm does
    """
    if start.initial != "upstream":
        raise UserError("a model of timm draws its weights as timm does: leave initial out")
    if start.pretrained is not None:
        load_weights(model.encoder.backbone, model.config.backbone, start.pretrained)


def halve(encoder: FrozenEncoder, dtype: torch.dtype) -> None:
    """Halves what `halve_blocks` names in a ViT; any other model as a whole in fp16, and layer by layer in bf16."""
    backbone = encoder.backbone
    if _is_vit(backbone):
        halve_blocks(backbone, dtype)
    elif dtype == torch.float16:
        encoder.backbone = Half(backbone, dtype)
    else:
        halve_layers(backbone, dtype)


def _is_vit(backbone: nn.Module) -> bool:
    """Whether it is timm's plain ViT, whose blocks are attention and MLP one after the other."""
    return isinstance(backbone, VisionTransformer) and all(type(block) is Block for block in backbone.blocks)


def _write_out_attention(backbone: Any) -> None:
    """Makes attention products around a softmax: torch cannot export its own kernel with a bias or with more axes.

    In a ViT it changes the pooling alone, which stays fp32: TensorRT has no kernel of ONNX's Attention for fp32.
    """
    part = backbone.attn_pool if _is_vit(backbone) else backbone
    for module in part.modules() if part is not None else ():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


SPEC = DetectorSpec(
    name="probe",
    title="linear probe",
    config=ProbeConfig,
    build=Probe,
    views=lambda config: CentreCrop(config.side, Resize(config.resize, config.rule, config.interpolation)),
    recognises=lambda _: False,  # names of tensors do not say which model of timm it is; the header does
    halve=halve,
    code_licence="Apache-2.0",
    weights_licence="the backbone's, which timm names",
    averages=True,
    threshold_source="not calibrated; `spai-train evaluate --calibrate` finds one",
    training=Training(initialise=first_weights, backbone="encoder.backbone"),
)
