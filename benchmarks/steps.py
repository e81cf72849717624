"""A step of `fit` on a batch that lies in memory, for whatever formulation of SPAI."""

import os

import torch
from models import random_model
from torch import Tensor, nn

from spai_train.data.dataset import Batch
from spai_train.detectors.spai.model import SPAI, SPAIConfig
from spai_train.models.vit import cpu_chunk
from spai_train.training.losses import Objective, objective
from spai_train.training.optimizer import OptimizerSettings, build_optimizer

MODEL = os.environ.get("SPAI_BENCH_FIT_MODEL", "vitb")
CHUNK = int(os.environ.get("SPAI_BENCH_CHUNK", "0")) or None  # of Backbone; None is what fit sets
VIEWS = 4  # of an image, the published number


class Step:
    """Forward, loss, backward, the norm of the gradients, AdamW: what `Loop` does between two batches.

    :param model: views (B, V, S, S, 3) uint8 → Verdict
    :param optimizer: over the parameters of `model` that train
    :param precision: torch.float32, or what autocast computes in
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, precision: torch.dtype = torch.float32
    ) -> None:
        self.model, self.optimizer, self.batch, self.precision = model, optimizer, batch, precision
        self._objective = objective(Objective())

    def __call__(self) -> None:
        self.model.train()
        self.loss().backward()
        nn.utils.get_total_norm(self._gradients())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> Tensor:
        """Of the batch, in the mode that the model is in."""
        with torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32):
            verdict = self.model(self.batch.views)
        return self._objective(verdict.logit, verdict.embedding, self.batch.labels, 0)

    def undisturbed(self) -> tuple[float, Tensor]:
        """Loss and all gradients in one row, without dropout and drop path; nothing is learned."""
        self.model.eval()
        loss = self.loss()
        loss.backward()
        gradient = torch.cat([part.flatten() for part in self._gradients()])
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), gradient

    def _gradients(self) -> list[Tensor]:
        parts = (part for group in self.optimizer.param_groups for part in group["params"])
        return [part.grad for part in parts if part.grad is not None]


def trainee() -> tuple[SPAI, torch.optim.Optimizer]:
    """MODEL with random weights and a frozen backbone, and the optimizer that `fit` gives it."""
    model = random_model(MODEL)
    model.freeze_backbone()
    backbone = model.encoder.backbone
    backbone.chunk = CHUNK or cpu_chunk(backbone.patch_embed.num_patches, model.config.width)
    return model, build_optimizer(model, OptimizerSettings(), model.config.depth)


def random_batch(config: SPAIConfig, images: int) -> Batch:
    """Views of noise, real and generated in turn; images differ in contrast, else the two classes' gradients cancel."""
    torch.manual_seed(0)
    contrast = torch.linspace(0.2, 1, images).reshape(-1, 1, 1, 1, 1)
    views = (255 * contrast * torch.rand(images, VIEWS, config.tile_size, config.tile_size, 3)).byte()
    return Batch(views, torch.arange(images).remainder(2).float(), ())
