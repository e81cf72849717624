"""Dead-leaves scenes: overlapping textured shapes whose sizes follow a power law, as objects in photographs do.

The model is that of Lee, Mumford and Huang, "Occlusion models for natural images" (IJCV 2001): radii with density
∝ r⁻³, each leaf hiding what lies under it. It gives edges at every scale and the 1/f spectrum of natural images.
"""

from dataclasses import dataclass

import numpy as np

from spai_train.data import Pixels
from spai_train.simulation.textures import fractal, grating

SMALLEST_RADIUS = (4.0, 14.0)  # pixels; drawn once a scene, so that some are busy and some are calm
LARGEST_RADIUS = 85.0  # a leaf fits into a texture
LAYERS = 3.0  # how often a pixel is painted over, on average
TEXTURE_SIZE = 256
PALETTE = 6


@dataclass(frozen=True)
class Leaf:
    """One shape: a superellipse, rotated.

    :param centre: row and column, in pixels
    :param radius: the radius along the longer axis, in pixels
    :param aspect: shorter axis over longer axis, in (0, 1]
    :param squarings: 1 gives an ellipse (power 2), 3 nearly a rectangle (power 8)
    """

    centre: tuple[float, float]
    radius: float
    aspect: float
    angle: float
    squarings: int


def dead_leaves(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A scene in linear light.

    :returns: (height, width, 3), in [0, 1]
    """
    palette = _palette(rng)
    textures = np.tile(fractal(rng, 4, TEXTURE_SIZE, rng.uniform(0.6, 1.4)), (1, 2, 2))
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = palette[0]
    for leaf in _leaves(rng, height, width):
        _paint(canvas, leaf, rng, palette, textures)
    exposure = np.float32(rng.uniform(0.35, 0.9) / np.quantile(canvas, 0.95))
    scene: Pixels = np.clip(canvas * exposure, 0, 1)
    return scene


def _palette(rng: np.random.Generator) -> Pixels:
    """The linear RGB of a scene's materials, with log-normal brightness and low saturation: (PALETTE, 3)."""
    brightness = np.exp(rng.normal(-1.2, 0.7, (PALETTE, 1)))
    tint = np.exp(rng.normal(0, 0.35, (PALETTE, 3)) + rng.normal(0, 0.1, (1, 3)))
    palette: Pixels = np.clip(brightness * tint, 0.01, 1).astype(np.float32)
    return palette


def _leaves(rng: np.random.Generator, height: int, width: int) -> list[Leaf]:
    """Draws leaves from back to front; radii of density ∝ r⁻³ come from the inverse distribution function."""
    low, high = np.exp(rng.uniform(*np.log(SMALLEST_RADIUS))), LARGEST_RADIUS
    mean_area = 2 * np.pi * np.log(high / low) / (low**-2 - high**-2)
    margin = 20
    count = int(LAYERS * (height + 2 * margin) * (width + 2 * margin) / (0.75 * mean_area))
    radii = (low**-2 - rng.random(count) * (low**-2 - high**-2)) ** -0.5
    return [
        Leaf((float(y), float(x)), float(radius), float(aspect), float(angle), int(squarings))
        for y, x, radius, aspect, angle, squarings in zip(
            rng.uniform(-margin, height + margin, count),
            rng.uniform(-margin, width + margin, count),
            radii,
            rng.uniform(0.5, 1, count),
            rng.uniform(0, np.pi, count),
            rng.choice((1, 1, 2, 3), count),
            strict=True,
        )
    ]


def _paint(canvas: Pixels, leaf: Leaf, rng: np.random.Generator, palette: Pixels, textures: Pixels) -> None:
    """Paints a leaf over the canvas (H, W, 3), in place, with an edge one pixel soft."""
    box = _box(leaf, canvas.shape[0], canvas.shape[1])
    rows, columns = box
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(leaf.centre[0])
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(leaf.centre[1])
    alpha = _coverage(leaf, y, x)[..., None]  # (h, w, 1)
    colour = palette[rng.integers(len(palette))] * np.float32(np.exp(rng.normal(0, 0.25)))
    surface = _surface(rng, leaf, y, x, textures)[..., None] * colour
    canvas[box] += alpha * (surface - canvas[box])


def _box(leaf: Leaf, height: int, width: int) -> tuple[slice, slice]:
    reach = leaf.radius * (2**0.5 if leaf.squarings > 1 else 1) + 1
    y, x = leaf.centre
    rows = slice(max(0, int(y - reach)), min(height, int(y + reach) + 1))
    columns = slice(max(0, int(x - reach)), min(width, int(x + reach) + 1))
    return rows, columns


def _coverage(leaf: Leaf, y: Pixels, x: Pixels) -> Pixels:
    """The share of each pixel that the leaf covers, from the distance to its edge: (h, w) in [0, 1]."""
    cosine, sine = np.float32(np.cos(leaf.angle)), np.float32(np.sin(leaf.angle))
    along, across = cosine * x + sine * y, (cosine * y - sine * x) / np.float32(leaf.aspect)
    for _ in range(leaf.squarings):
        along, across = np.square(along), np.square(across)
    distance = along + across
    for _ in range(leaf.squarings):
        distance = np.sqrt(distance)
    coverage: Pixels = np.clip((leaf.radius - distance) * np.float32(leaf.aspect) + np.float32(0.5), 0, 1)
    return coverage


def _surface(rng: np.random.Generator, leaf: Leaf, y: Pixels, x: Pixels, textures: Pixels) -> Pixels:
    """The brightness of the leaf's material, near 1: shading, and a 1/f texture or a grating. (h, w), at least 0"""
    slope = rng.normal(0, 0.3 / leaf.radius, 2).astype(np.float32)
    contrast = np.float32(np.exp(rng.uniform(np.log(0.03), np.log(0.4))))
    shape = (y.shape[0], x.shape[1])
    if rng.random() < 0.2:
        pattern = grating(rng, y, x)
    else:
        top, left = rng.integers(0, TEXTURE_SIZE, 2)
        pattern = textures[rng.integers(len(textures)), top : top + shape[0], left : left + shape[1]]
    surface: Pixels = np.maximum(1 + slope[0] * y + slope[1] * x + contrast * pattern, 0)
    return surface
