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

    :param crop: A share of the image's area between these two is cut out and resized; [1, 1] cuts S×S pixels without
        resizing, and pads a shorter side by reflection. Upstream: MIN_CROP_AREA, MAX_CROP_AREA.
    :param ratio: The width over the height of what is cut out lies between these two. It is drawn evenly in its
        logarithm (albumentations' default).
    :param shorter_side: The image is resized to a shorter side of so many pixels before the crop; null leaves it as it
        is. The resize is bilinear, as torchvision resizes PIL images.
    :param degrade: Blur, noise, jitter, sharpening and compression act on the `view` in the end, on the whole `image`
        before it is resized and cropped, or on the whole `resized` image before it is cropped. SPAI's act on the view;
        a JPEG that people share was cropped and resized after it was compressed.
    :param interpolation: Every resize interpolates in this way. Rotation is bilinear in any case.
    :param antialias: If this is true, a resize to fewer pixels averages over what it leaves out, as Pillow's does.
        OpenCV's does not.
    :param horizontal_flip: A view is mirrored left to right with this probability.
    :param vertical_flip: A view is mirrored top to bottom with this probability.
    :param rotation: A view is turned with this probability, and the largest square without a border is resized to it.
        Upstream: ROTATION_PROB.
    :param degrees: A view is turned by at most this angle, either way. Upstream: ROTATION_DEGREES.
    :param blur: A Gaussian blur is applied with this probability. Upstream: GAUSSIAN_BLUR_PROB.
    :param blur_kernel: The kernel of the blur has a side between these two odd numbers of pixels. An even draw counts
        as the next odd size. Upstream: GAUSSIAN_BLUR_LIMIT.
    :param blur_sigma: The kernel's standard deviation lies between these two, in pixels. Upstream:
        GAUSSIAN_BLUR_SIGMA.
    :param noise: Gaussian noise is added with this probability, independently in each channel. Upstream:
        GAUSSIAN_NOISE_PROB.
    :param noise_variance: The variance of the noise lies between these two, on the scale of 0–255 (albumentations'
        default).
    :param jitter: Brightness, contrast, saturation and hue are changed with this probability, in any order. Upstream:
        COLOR_JITTER.
    :param brightness: Jitter multiplies the brightness by a factor between these two. Upstream: COLOR_JITTER_*_RANGE.
    :param contrast: Jitter multiplies the contrast by a factor between these two.
    :param saturation: Jitter multiplies the saturation by a factor between these two.
    :param hue: Jitter turns the colour circle by an amount between these two, of which 0.5 is half a turn. Upstream:
        COLOR_JITTER_HUE_RANGE.
    :param sharpen: A 3×3 filter sharpens with this probability. It is (1 − α)·identity + α·effect, where effect is 8 +
        lightness in the centre and −1 around it. Upstream: SHARPEN_PROB.
    :param sharpen_alpha: The filter's α lies between these two, from 0 to 1. Upstream: SHARPEN_ALPHA_RANGE.
    :param sharpen_lightness: The brightness of the filter's effect lies between these two. Upstream:
        SHARPEN_LIGHTNESS_RANGE.
    :param jpeg: A JPEG compression is applied with this probability. Upstream: JPEG_COMPRESSION_PROB.
    :param jpeg_quality: JPEG qualities lie between these two, from 1 to 100. Upstream: JPEG_MIN_QUALITY,
        JPEG_MAX_QUALITY.
    :param webp: A WebP compression is applied with this probability. Upstream: WEBP_COMPRESSION_PROB.
    :param webp_quality: WebP qualities lie between these two, from 1 to 100.
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
