"""Community Forensics (CVPR 2025, JeongsooP/Community-Forensics): a ViT whose CLS token a linear layer reads.

Its training set has images of 4,803 generators; Sieve's browser extension runs a fine-tune of the same network.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta
from torch import Tensor, nn

from spai_runtime.views import CentreCrop, Resize
from spai_train.detectors.linear import LinearHead, LinearModel, Pixels
from spai_train.detectors.spec import DetectorSpec
from spai_train.models.half import halve_blocks
from spai_train.models.vit import HEAD_WIDTH, ClassTokenBackbone, Family
from spai_train.tensors import CheckpointError, Content, State, dimensions, shape_of

RESIZES = {384: 440, 224: 256}  # side of the view → of the shorter side before (upstream `determine_resize_crop_sizes`)

_AUGREG = Family(final_norm=True)  # eps, mean and std of timm's `vit_*.augreg_in21k_ft_in1k`
_COMPILED = "_orig_mod."  # what torch.compile puts before names

Side = Annotated[int, Meta(ge=16, le=2048)]
Width = Annotated[int, Meta(ge=HEAD_WIDTH, le=1 << 14)]


@dataclass(frozen=True)
class CommunityForensicsConfig:
    """The defaults are ViT-S/16 at 384 pixels, `OwensLab/commfor-model-384` on the Hugging Face hub.

    :param side: of a view, in pixels; `resize` is the image's shorter side before it is cropped
    """

    side: Side = 384
    resize: Side = 440
    patch_size: Annotated[int, Meta(ge=1, le=256)] = 16
    width: Width = 384
    depth: Annotated[int, Meta(ge=1, le=128)] = 12

    def __post_init__(self) -> None:
        if self.side % self.patch_size or self.width % HEAD_WIDTH:
            raise ValueError(f"patches of {self.patch_size} pixels and heads of {HEAD_WIDTH} channels do not divide it")

    @property
    def features(self) -> int:
        """D: the CLS token behind the last LayerNorm."""
        return self.width


class ClassTokenEncoder(nn.Module):
    """Pixels → the CLS token."""

    def __init__(self, config: CommunityForensicsConfig) -> None:
        super().__init__()
        self.pixels = Pixels(_AUGREG.mean, _AUGREG.std)
        sizes = config.side, config.patch_size, config.width, config.depth
        self.backbone = ClassTokenBackbone.sized(_AUGREG, *sizes)

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: (N, D) float32
        """
        return self.backbone(self.pixels(views))  # type: ignore[no-any-return]


class CommunityForensics(LinearModel):
    """See `DetectorModel`."""

    detector = "community-forensics"

    def __init__(self, config: CommunityForensicsConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, ClassTokenEncoder(config), LinearHead(config.features)


def recognises(state: State) -> bool:
    """Whether these are tensors of upstream's `ViTClassifier`, or ours."""
    head = {name.removeprefix(_COMPILED): tensor for name, tensor in state.items() if name.endswith("head.weight")}
    ours = (
        "encoder.backbone.cls_token" in state
        and "encoder.backbone.norm_pre.weight" not in state
        and "head.linear.weight" in state
    )
    return ours or ("vit.head.weight" in head and len(head["vit.head.weight"]) == 1)


def read(content: Content) -> tuple[CommunityForensicsConfig, State]:
    """The hub's `model.safetensors`, upstream's training checkpoint, or a bare state dict of either names.

    :raises CheckpointError: tensors that tell the dimensions are missing, or a view that was not published
    """
    state = {_renamed(name): tensor for name, tensor in content.state.items()}
    positions, patches = (
        shape_of(state, f"encoder.backbone.{name}", axes)
        for name, axes in (("pos_embed", 3), ("patch_embed.proj.weight", 4))
    )
    side = round((positions[1] - 1) ** 0.5) * patches[-1]
    if side not in RESIZES:
        raise CheckpointError(f"{content.path} looks at views of {side} pixels; published are those of 384 and 224")
    depth = sum(name.startswith("encoder.backbone.blocks.") and name.endswith(".attn.qkv.weight") for name in state)
    values = {"side": side, "resize": RESIZES[side], "patch_size": patches[-1], "width": patches[0], "depth": depth}
    return dimensions(values, CommunityForensicsConfig), state


def to_content(model: CommunityForensics) -> dict[str, State]:
    """What upstream's `--ckpt_path` with `--only_load_model_weights` reads, once torch.save wrote it."""
    state = model.state_dict().items()
    names = (("encoder.backbone.", "vit."), ("head.linear.", "vit.head."))
    return {"model": {name.replace(*names[0]).replace(*names[1]): tensor for name, tensor in state}}


def _renamed(name: str) -> str:
    """Upstream's name of a tensor → ours; ours stays."""
    name = name.removeprefix(_COMPILED)
    for theirs, ours in (("vit.head.", "head.linear."), ("vit.", "encoder.backbone.")):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


SPEC = DetectorSpec(
    name="community-forensics",
    title="Community Forensics",
    config=CommunityForensicsConfig,
    build=CommunityForensics,
    views=lambda config: CentreCrop(config.side, Resize(config.resize, filter="bilinear")),
    recognises=recognises,
    halve=lambda encoder, dtype: halve_blocks(encoder.backbone, dtype),
    code_licence="MIT",
    weights_licence="MIT",
    averages=True,
    read=read,
    to_upstream=to_content,
)
