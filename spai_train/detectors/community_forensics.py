"""Community Forensics (CVPR 2025, JeongsooP/Community-Forensics): a ViT whose CLS token a linear layer reads.

Its training set has images of 4,803 generators; Sieve's browser extension runs a fine-tune of the same network.
"""

from dataclasses import dataclass

from spai_runtime.views import CentreCrop, Resize
from spai_train.detectors import class_token
from spai_train.detectors.class_token import (
    BACKBONE,
    ClassTokenConfig,
    ClassTokenEncoder,
    first_weights,
    is_ours,
    sizes_of,
)
from spai_train.detectors.linear import LinearHead, LinearModel
from spai_train.detectors.spec import DetectorSpec, Training
from spai_train.models.half import halve_backbone
from spai_train.models.vit import Family
from spai_train.tensors import CheckpointError, Content, State, dimensions

RESIZES = {384: 440, 224: 256}  # side of the view → of the shorter side before (upstream `determine_resize_crop_sizes`)

_SIZES = {384: "small", 192: "tiny"}  # width → the size in timm's names (upstream `models.py`)
_COMPILED = "_orig_mod."  # what torch.compile puts before names


@dataclass(frozen=True)
class CommunityForensicsConfig(ClassTokenConfig):
    """The dimensions; the defaults are ViT-S/16 at 384 pixels, `OwensLab/commfor-model-384` on the Hugging Face hub.

    :param resize: The image is resized to a shorter side of so many pixels before it is cropped.
    """

    side: class_token.Side = 384
    patch_size: class_token.PatchSize = 16
    width: class_token.Width = 384
    depth: class_token.Depth = 12
    resize: class_token.Side = 440


def _family(config: CommunityForensicsConfig) -> Family:
    """The family of timm's `vit_*.augreg_in21k_ft_in1k`, which upstream starts from, with ImageNet's normalisation."""
    size = _SIZES.get(config.width)
    name = f"vit_{size}_patch{config.patch_size}_{config.side}.augreg_in21k_ft_in1k"
    return Family(final_norm=True, hub=name if size else "")


class CommunityForensics(LinearModel):
    """See `DetectorModel`."""

    detector = "community-forensics"
    encoder: ClassTokenEncoder

    def __init__(self, config: CommunityForensicsConfig) -> None:
        super().__init__()
        self.config, self.head = config, LinearHead(config.features)
        self.encoder = ClassTokenEncoder(config, _family(config))


def recognises(state: State) -> bool:
    """Whether these are tensors of upstream's `ViTClassifier`, or ours."""
    head = state.get("vit.head.weight", state.get(f"{_COMPILED}vit.head.weight"))
    return is_ours(state) or (head is not None and head.shape[:1] == (1,))


def read(content: Content) -> tuple[CommunityForensicsConfig, State]:
    """Reads the hub's `model.safetensors`, upstream's training checkpoint, or a bare state dict of either names.

    :raises CheckpointError: tensors that tell the dimensions are missing, or the view is of no published size
    """
    state = {_renamed(name): tensor for name, tensor in content.state.items()}
    sizes = sizes_of(state)
    if (side := sizes["side"]) not in RESIZES:
        raise CheckpointError(f"{content.path} looks at views of {side} pixels; published are those of 384 and 224")
    return dimensions({**sizes, "resize": RESIZES[side]}, CommunityForensicsConfig), state


def to_content(model: CommunityForensics) -> dict[str, State]:
    """What torch.save must write for upstream's `--ckpt_path` with `--only_load_model_weights`."""
    state = model.state_dict().items()
    names = ((BACKBONE, "vit."), ("head.linear.", "vit.head."))
    return {"model": {name.replace(*names[0]).replace(*names[1]): tensor for name, tensor in state}}


def _renamed(name: str) -> str:
    """Upstream's name of a tensor → ours; ours stays."""
    name = name.removeprefix(_COMPILED)
    for theirs, ours in (("vit.head.", "head.linear."), ("vit.", BACKBONE)):
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
    halve=halve_backbone,
    code_licence="MIT",
    weights_licence="MIT",
    averages=True,
    read=read,
    to_upstream=to_content,
    training=Training(first_weights, "encoder.backbone", all_train=lambda _: True),
)
