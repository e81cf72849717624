"""Settings of the augmentation: what training does to the pixels of an image before it looks at them."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from msgspec import Meta

from spai_runtime.views.resize import LARGEST_SIDE

Probability = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Factor = Annotated[float, Meta(ge=0)]
Quality = Annotated[int, Meta(ge=1, le=100)]
Hue = Annotated[float, Meta(ge=-0.5, le=0.5)]
Kernel = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Augmentation:
    """How views are drawn. The defaults are SPAI's published fine-tuning (upstream spai/config.py, AUG.*).

    Pairs are the lowest and the highest value; what is drawn lies between them, evenly.

    :param crop: share of the image's area that is cut out and resized, in (0, 1] (MIN_CROP_AREA, MAX_CROP_AREA);
        (1, 1) cuts S×S pixels without resizing, and pads a shorter side by reflection
    :param shorter_side: that the image is resized to before the crop, in pixels, bilinear as torchvision resizes PIL
        images; None leaves it as it is
    :param ratio: width over height of what is cut out, drawn evenly in its logarithm (albumentations' default)
    :param interpolation: of every resize; rotation is bilinear in any case
    :param antialias: whether a resize to fewer pixels averages over what it leaves out, as Pillow's does; OpenCV's
        does not
    :param degrade: what blur, noise, jitter, sharpening and compression act on: the `view`, in the end; the whole
        `image`, before it is resized and cropped; or the whole `resized` image, before it is cropped. SPAI's act on
        the view; a JPEG that people share was cropped and resized after it was compressed
    :param horizontal_flip, vertical_flip: probabilities
    :param rotation: probability (ROTATION_PROB) of turning, cutting out the largest square that shows no border, and
        resizing that to S×S
    :param degrees: largest angle, either way (ROTATION_DEGREES)
    :param blur: probability of a Gaussian blur (GAUSSIAN_BLUR_PROB)
    :param blur_kernel: kernel size in pixels, odd; an even draw counts as the next odd size (GAUSSIAN_BLUR_LIMIT)
    :param blur_sigma: standard deviation of the kernel in pixels (GAUSSIAN_BLUR_SIGMA)
    :param noise: probability of Gaussian noise, independent in each channel (GAUSSIAN_NOISE_PROB)
    :param noise_variance: on the scale of 0–255 (albumentations' default)
    :param jitter: probability of changing brightness, contrast, saturation and hue, in any order (COLOR_JITTER)
    :param brightness, contrast, saturation: factors, 1 leaves the image as it is (COLOR_JITTER_*_RANGE)
    :param hue: turn of the colour circle, in [−0.5, 0.5] (COLOR_JITTER_HUE_RANGE)
    :param sharpen: probability (SHARPEN_PROB) of a 3×3 filter, (1 − α)·identity + α·effect, where effect is
        8 + lightness in the centre and −1 around it
    :param sharpen_alpha: α, in [0, 1] (SHARPEN_ALPHA_RANGE)
    :param sharpen_lightness: brightness of the effect (SHARPEN_LIGHTNESS_RANGE)
    :param jpeg, webp: probabilities of a compression (JPEG_COMPRESSION_PROB, WEBP_COMPRESSION_PROB)
    :param jpeg_quality, webp_quality: 1–100 (JPEG_MIN_QUALITY, JPEG_MAX_QUALITY, and the same of WEBP)
    :raises ValueError: a pair whose first value is above its second, or an even kernel
    """

    crop: tuple[Share, Share] = (0.2, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    shorter_side: Annotated[int, Meta(ge=1, le=LARGEST_SIDE)] | None = None
    degrade: Literal["view", "image", "resized"] = "view"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = False
    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.5
    rotation: Probability = 0.5
    degrees: Annotated[float, Meta(ge=0, le=180)] = 90.0
    blur: Probability = 0.5
    blur_kernel: tuple[Kernel, Kernel] = (3, 9)
    blur_sigma: tuple[Positive, Positive] = (0.01, 0.5)
    noise: Probability = 0.5
    noise_variance: tuple[Factor, Factor] = (10.0, 50.0)
    jitter: Probability = 0.0
    brightness: tuple[Factor, Factor] = (0.8, 1.2)
    contrast: tuple[Factor, Factor] = (0.8, 1.2)
    saturation: tuple[Factor, Factor] = (0.8, 1.2)
    hue: tuple[Hue, Hue] = (-0.1, 0.1)
    sharpen: Probability = 0.0
    sharpen_alpha: tuple[Probability, Probability] = (0.01, 0.4)
    sharpen_lightness: tuple[Factor, Factor] = (0.95, 1.0)
    jpeg: Probability = 0.5
    jpeg_quality: tuple[Quality, Quality] = (50, 100)
    webp: Probability = 0.0
    webp_quality: tuple[Quality, Quality] = (50, 100)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{field.name} goes from {value[0]} to {value[1]}; put the lower value first")
        if any(size % 2 == 0 for size in self.blur_kernel):
            raise ValueError(f"blur_kernel goes from {self.blur_kernel[0]} to {self.blur_kernel[1]}; both must be odd")


FINETUNE = Augmentation()

PLAIN = Augmentation(  # somewhere in the image, its pixels as they are
    crop=(1.0, 1.0), horizontal_flip=0.0, vertical_flip=0.0, rotation=0.0, blur=0.0, noise=0.0, jpeg=0.0
)

# Masked frequency modelling: torchvision's random resized crop and flip of a Pillow image (upstream
# spai/data/data_mfm.py, `MFMTransform`).
PRETRAIN = replace(PLAIN, crop=(0.2, 1.0), interpolation="bicubic", antialias=True, horizontal_flip=0.5)
