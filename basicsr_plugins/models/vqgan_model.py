"""Stage 1 of the content prior: a VQGAN learns to reconstruct clean images (arXiv 2012.09841, used in 2502.12600)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn

from basicsr_plugins.archs.vqgan_arch import VQGAN
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import non_negative, option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import TrainSettings

__all__ = ["VQGANModel", "adaptive_weight", "check_is_vqgan"]

PUBLISHED = "taming-transformers"


@dataclass
class VQGANSettings(TrainSettings):
    """Section ``train`` of stage 1."""

    optim_d: Optional[dict[str, Any]] = option(None, "optimizer of the discriminator net_d")
    codebook_weight: float = option(1.0, "weight of the codebook loss", source=PUBLISHED, check=non_negative)
    gan_opt: dict[str, Any] = option(
        {"type": "GANLoss", "gan_type": "hinge", "loss_weight": 0.8}, "adversarial loss", source=PUBLISHED
    )
    net_d_start: int = option(
        10000,
        "iterations before the adversarial loss and the discriminator start",
        source=PUBLISHED,
        check=non_negative,
    )
    adaptive_weight: bool = option(
        True, "scale the adversarial loss so that its gradient matches the others'", source=PUBLISHED
    )


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Return |d reconstruction / d last_layer| / |d adversarial / d last_layer|, at most 10,000 (eq. 7 of 2012.09841).

    Args:
        reconstruction: Pixel plus perceptual loss, a scalar.
        adversarial: The generator's adversarial loss, a scalar.
        last_layer: The decoder's last weight.
    """
    reference = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0].norm()
    given = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0].norm()
    return (reference / (given + 1e-4)).clamp(0, 1e4).detach()


def check_is_vqgan(network: nn.Module, where: str) -> None:
    """Raise OptionError unless the network is a VQGAN that takes images in [0, 1]."""
    if not isinstance(network, VQGAN):
        raise OptionError(f"{where}.type: this recipe needs a VQGAN, got {type(network).__name__}.")
    if not network.unit_range:
        raise OptionError(f"{where}.unit_range: BasicSR's images are in [0, 1]; set unit_range: true.")


@provides("model")
class VQGANModel(RestorationModel):
    """Train a VQGAN on clean images: reconstruction, perceptual, codebook and, later, adversarial loss.

    Only ``gt`` of the data set is used; validation reconstructs it, so that PSNR and SSIM are the prior's
    reconstruction ceiling, and ``codes_used`` counts the codes that occur. Losses come from BasicSR: ``pixel_opt``
    (L1), ``perceptual_opt`` (VGG in place of LPIPS), ``gan_opt`` (hinge). ``net_d`` is any registered discriminator.

    .. code-block:: yaml

        model_type: VQGANModel
        network_g: {type: VQGAN, unit_range: true, n_embed: 1024, embed_dim: 256, ddconfig: {...}}
        network_d: {type: UNetDiscriminatorSN, num_in_ch: 3, num_feat: 64}
        train:
          optim_g: {type: Adam, lr: !!float 3.6e-5, betas: [0.5, 0.9]}
          optim_d: {type: Adam, lr: !!float 3.6e-5, betas: [0.5, 0.9]}
          pixel_opt: {type: L1Loss}
          net_d_start: 10000
    """

    Settings: ClassVar[type[TrainSettings]] = VQGANSettings
    network_names: ClassVar[tuple[str, ...]] = ("g", "d")
    trained_networks: ClassVar[tuple[str, ...]] = ("g", "d")

    def setup_losses(self) -> None:
        """Add the adversarial loss."""
        super().setup_losses()
        self.cri_gan = self.make_loss(self.settings.gan_opt)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch; the clean images are input as well as target."""
        clean = data.get("gt", data.get("lq"))
        super().feed_data({**data, "lq": clean, "gt": clean})

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield the auto-encoder's losses, then the discriminator's."""
        adversarial = current_iter > self.settings.net_d_start
        result = self.net_g(self.gt, full=True)
        self.output = result.image.float()
        losses = self.restoration_losses(self.output, self.gt, self.gt)
        if adversarial:
            # the discriminator is frozen in the generator's phase
            self.net_d.requires_grad_(False)
            try:
                losses["l_g_gan"] = self._generator_loss(sum(losses.values()))
            finally:
                self.net_d.requires_grad_(True)
        losses["l_codebook"] = self.settings.codebook_weight * result.codebook_loss
        yield losses
        if adversarial:
            self.output = self.output.detach()
            real, fake = self.net_d(self.gt).float(), self.net_d(self.output).float()
            yield {
                "l_d_real": 0.5 * self.cri_gan(real, True, is_disc=True),
                "l_d_fake": 0.5 * self.cri_gan(fake, False, is_disc=True),
            }

    def _generator_loss(self, reconstruction: Any) -> Tensor:
        loss = self.cri_gan(self.net_d(self.output).float(), True, is_disc=False)
        if self.settings.adaptive_weight:
            loss = loss * adaptive_weight(reconstruction, loss / self._gan_weight, self.net_g.last_layer())
        return loss

    @property
    def _gan_weight(self) -> float:
        # the adaptive weight compares bare losses; the loss' own weight comes on top
        return float(getattr(self.cri_gan, "loss_weight", 1.0)) or 1.0

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Record which codes the image uses."""
        network = self.evaluation_network()
        result = network(self.gt, full=True)
        return {**super().evaluate(), "codes": result.indices.unique().tolist()}

    def aggregate(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return how many codes the data set uses."""
        metrics, text = super().aggregate(records, dataset_name)
        used = set().union(*(record["codes"] for record in records)) if records else set()
        return {**metrics, "codes_used": float(len(used))}, text

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check that ``network_g`` is a VQGAN for images in [0, 1]."""
        super().check_recipe(run, networks)
        check_is_vqgan(networks["g"], "network_g")
