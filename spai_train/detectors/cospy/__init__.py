"""CO-SPY (CVPR 2025, Megum1/CO-SPY): one branch sees what an image shows, the other which traces it bears.

Two variants were published, trained on images of Stable Diffusion v1.4 and of ProGAN. Each exists fused, where two
branches were trained apart and a linear layer joins their logits, and trained end to end.
"""

from spai_runtime.views import CentreCrop, Resize, ViewPolicy
from spai_train.detectors.cospy.config import CoSpyConfig
from spai_train.detectors.cospy.model import CoSpy
from spai_train.detectors.cospy.training import TRAINING
from spai_train.detectors.cospy.upstream import FILES, read, recognises, to_upstream, tower
from spai_train.detectors.spec import DetectorSpec
from spai_train.models.half import halve_backbone


def views(config: CoSpyConfig) -> ViewPolicy:
    """A crop from the middle; before it, the shorter side gets 384 pixels, or 256 in the variant trained on ProGAN."""
    return CentreCrop(config.side, Resize(256 if config.vae is None else config.side, filter="bilinear"))


SPEC = DetectorSpec(
    name="cospy",
    title="CO-SPY",
    config=CoSpyConfig,
    build=CoSpy,
    views=views,
    recognises=recognises,
    halve=halve_backbone,  # the artifact branch stays fp32: its residual is a small difference, times 14
    code_licence="MIT",
    weights_licence="not said; Apache-2.0 SigLIP, MIT CLIP, CreativeML OpenRAIL-M the VAE",
    averages=True,
    read=read,
    to_upstream=to_upstream,
    tower=tower,
    files=FILES,
    training=TRAINING,
)
