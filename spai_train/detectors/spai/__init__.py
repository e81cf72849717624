"""SPAI (CVPR 2025, mever-team/spai), the detector that this toolkit began with."""

import torch
from torch import Tensor

from spai_runtime.views import Tiles
from spai_train.detectors.spai.config import SPAIConfig
from spai_train.detectors.spai.initial import first_weights
from spai_train.detectors.spai.model import SPAI, Projector, SpectralContextHead, SpectralEncoder
from spai_train.detectors.spai.pretraining import dimensions_of
from spai_train.detectors.spai.upstream import read, recognises, to_content
from spai_train.detectors.spec import DetectorSpec, Training
from spai_train.models.half import Half, halve_blocks


def views(config: SPAIConfig) -> Tiles:
    """Every tile of an image, or five crops where it has few tiles."""
    return Tiles(config.tile_size, config.tile_stride, config.minimum_tiles)


def embed(head: SpectralContextHead, features: Tensor) -> Tensor:
    """:param features: (B, V, D)
    :returns: what the classifier reads, (B, D)
    """
    return head.embed(features)[0]


def halve(encoder: SpectralEncoder, dtype: torch.dtype) -> None:
    """Halves attention and MLP of the blocks, each between two casts, the projectors up to their last LayerNorm, and
    the patch embedding. These stay fp32: scaling, filter, normalisation, every LayerNorm, LayerScale, the residual
    stream, cosine, mean and std, the spectral context, and the features.

    The patch embedding is fp16 in bf16 too, which costs nothing. The high-pass is a grey level or two: to round those
    weights alone to bf16 moves the demo detector's score of a photograph beyond the accuracy check's limit, and to
    round them to fp16 moves it by less than a fifth of that (`tests/export/test_precision.py`). ONNX has no bf16 Conv
    before opset 22 either. The residual stream takes as many casts in fp32 as it would in half, since LayerNorm is fp32
    either way, and it does not overflow where blocks add up a large channel.
    """
    halve_blocks(encoder.backbone, dtype)
    for projector in encoder.projectors:
        assert isinstance(projector, Projector)
        projector.layers.to(dtype)
        projector.layers[0] = Half(projector.layers[0], dtype, gives=dtype)  # its last LayerNorm casts up itself


SPEC = DetectorSpec(
    name="spai",
    title="SPAI",
    config=SPAIConfig,
    build=SPAI,
    views=views,
    recognises=recognises,
    halve=halve,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0, says upstream; the masked-frequency pre-training that they start from: non-commercial",
    attention=True,
    embed=embed,
    threshold_source="published value, not calibrated (18% false positives were seen on real photographs)",
    read=read,
    to_upstream=to_content,
    training=Training(
        first_weights, "encoder.backbone", lambda config: config.all_blocks_count, dimensions_of=dimensions_of
    ),
)
