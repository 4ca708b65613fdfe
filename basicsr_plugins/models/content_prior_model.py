"""Stage 2 of the content prior: a VQGAN of clean images learns to encode degraded ones (arXiv 2502.12600)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr_plugins.adapters.attach import AttachedAdapter, attach_adapter
from basicsr_plugins.archs.vqgan_arch import VQGAN, code_distances
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import non_negative, option
from basicsr_plugins.core.registration import provides
from basicsr_plugins.models.parts.decoupled_scores import DecoupledScores
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.models.vqgan_model import check_is_vqgan
from basicsr_plugins.training.inference import Restorer
from basicsr_plugins.training.run_options import RunOptions
from basicsr_plugins.training.settings import TrainSettings
from basicsr_plugins.training.validation import images_of, measure_image

__all__ = ["ContentPriorModel", "code_cross_entropy", "freeze"]

#: Which parts of a VQGAN are trained under each policy; the rest is frozen.
TRAINED_PARTS = {
    "encoder": ("encoder", "quant_conv"),
    "encoder+decoder": ("encoder", "quant_conv", "post_quant_conv", "decoder"),
    "all": ("encoder", "quant_conv", "quantize", "post_quant_conv", "decoder"),
}


@dataclass
class ContentPriorSettings(TrainSettings):
    """Section ``train`` of stage 2. The paper's weights are not public; the defaults are ours."""

    finetune: Literal["encoder", "encoder+decoder", "all", "lora"] = option(
        "encoder", "which parts are trained; the rest is frozen"
    )
    peft_opt: dict[str, Any] = option(
        {"r": 8, "target": r"encoder\..*|quant_conv"}, "with finetune: lora, the adapter: rank, layers, any PEFT option"
    )
    latent_weight: float = option(
        0.5, "weight of the squared distance to the clean image's quantised latent", check=non_negative
    )
    commitment_weight: float = option(0.25, "weight of the latent's distance to its own code", check=non_negative)
    codebook_weight: float = option(
        1.0, "weight of the codes' distance to the latent; finetune: all", check=non_negative
    )
    code_weight: float = option(
        0.0, "weight of the cross-entropy towards the clean image's code indices (0.5 is a start)", check=non_negative
    )


def freeze(network: VQGAN, policy: str) -> None:
    """Freeze, in place, the parts that a policy does not train.

    Args:
        network: The VQGAN.
        policy: ``encoder`` | ``encoder+decoder`` | ``all``.
    """
    for name, part in network.named_children():
        part.requires_grad_(name in TRAINED_PARTS[policy])


def code_cross_entropy(latent: Tensor, codebook: Tensor, indices: Tensor) -> Tensor:
    """Return the cross-entropy of softmax(-squared distance to each code) towards code indices, a scalar.

    Args:
        latent: (n, d, h, w).
        codebook: (k, d).
        indices: The target codes, (n, h, w).
    """
    return F.cross_entropy(-code_distances(latent, codebook).flatten(0, 2), indices.flatten())


@provides("model")
class ContentPriorModel(DecoupledScores, RestorationModel):
    """Restore through a frozen prior: L = |D(q(E(O))) - B| + w |E(O) - q(E0(B))|^2 + commitment (+ cross-entropy).

    ``net_prior`` is the frozen network of stage 1: the clean encoder E0 that gives the targets, and the
    reconstruction ceiling D0(q(E0(B))), which is reported beside every metric as ``ceiling_*``. ``net_g`` starts as its
    copy. ``train.finetune`` says what is trained: ``encoder`` (default; codebook and decoder are frozen),
    ``encoder+decoder``, ``all``, or ``lora`` (an adapter on the encoder; checkpoints hold the merged, plain network).

    .. code-block:: yaml

        model_type: ContentPriorModel
        network_g: &vqgan {type: VQGAN, unit_range: true, n_embed: 1024, embed_dim: 256, ddconfig: {...}}
        network_prior: *vqgan
        path: {pretrain_network_prior: experiments/vqgan/models/net_g_latest.pth}
        train:
          finetune: encoder
          optim_g: {type: Adam, lr: !!float 1e-4}
          pixel_opt: {type: L1Loss}
    """

    Settings: ClassVar[type[TrainSettings]] = ContentPriorSettings
    network_names: ClassVar[tuple[str, ...]] = ("g", "prior")
    #: With ``finetune: lora``: the adapter on ``net_g``.
    adapter: Optional[AttachedAdapter] = None

    def setup(self) -> None:
        """Freeze the prior; start ``net_g`` from it and unfreeze the chosen parts."""
        self.net_prior.requires_grad_(False).eval()
        if not self.is_train:
            return
        lora = self.settings.finetune == "lora"
        if lora or not self.opt["path"].get("pretrain_network_g"):
            self.net_g.load_state_dict(self.net_prior.state_dict())
        if lora:
            self.adapter = attach_adapter(self.net_g, self.settings.peft_opt, network="VQGAN")
        else:
            freeze(self.net_g, self.settings.finetune)

    def phases(self, current_iter: int) -> Iterator[dict[str, Tensor]]:
        """Yield restoration, latent and code losses in one phase."""
        settings = self.settings
        with torch.no_grad():
            prior = self.net_prior.eval()
            target, indices, _ = prior.quantize(prior.encode(self.gt))
        result = self.net_g(self.lq, full=True)
        self.output = result.image.float()
        latent, codes = result.latent.float(), self.net_g.quantize.lookup(result.indices).float()
        losses = self.restoration_losses(self.output, self.gt)
        terms = {
            "l_latent": (settings.latent_weight, lambda: F.mse_loss(latent, target.float())),
            "l_commit": (settings.commitment_weight, lambda: F.mse_loss(latent, codes.detach())),
            "l_codes": (
                settings.code_weight,
                lambda: code_cross_entropy(latent, self.net_g.quantize.embedding.weight.float(), indices),
            ),
        }
        if settings.finetune == "all":
            terms["l_codebook"] = (settings.codebook_weight, lambda: F.mse_loss(codes, latent.detach()))
        losses.update((name, weight * loss()) for name, (weight, loss) in terms.items() if weight)
        yield losses

    # -- the ceiling ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Also score the prior's reconstruction of the clean image."""
        record = super().evaluate()
        if "gt" not in self.batch:
            return record
        settings = self.val_settings
        restore = Restorer(self.net_prior, 1, settings.pad_multiple, settings.tile, settings.tile_overlap)
        ceiling = restore(self.gt)
        images = images_of(ceiling, self.lq, self.gt)
        values = {name: measure_image(images, options) for name, options in (settings.metrics or {}).items()}
        rain = self.scores(ceiling, self.lq).get("rain")
        if rain:
            values.update(e_r=rain["e_r"], e_b=rain["e_b"])
        return {**record, "ceiling": {name: value for name, value in values.items() if value is not None}}

    def aggregate(self, records: list[dict[str, Any]], dataset_name: str) -> tuple[dict[str, float], str]:
        """Return the ceiling's means as ``ceiling_<metric>``."""
        metrics, text = super().aggregate(records, dataset_name)
        ceilings = [record["ceiling"] for record in records if "ceiling" in record]
        for name in dict.fromkeys(name for values in ceilings for name in values):
            values = [each[name] for each in ceilings if name in each]
            metrics[f"ceiling_{name}"] = sum(values) / len(values)
        return metrics, text

    # -- adapters in and out of checkpoints -------------------------------------------------------------------------

    def exported_weights(self, name: str, network: nn.Module) -> dict[str, Any]:
        """Return plain VQGAN weights, with the adapter merged in."""
        if name != "g" or self.adapter is None:
            return super().exported_weights(name, network)
        twin = copy.deepcopy(self.adapter)  # merging cannot be undone exactly
        twin.net.load_state_dict(network.state_dict())
        return super().exported_weights(name, twin.merge())

    def load_pretrained(self, name: str, network: nn.Module, key: Optional[str] = None) -> None:
        """Load ``path.pretrain_network_<name>``; a network with an adapter is restored by ``load_extra_state``."""
        if name != "g" or self.adapter is None:
            super().load_pretrained(name, network, key)

    def extra_state(self) -> dict[str, Any]:
        """Return the adapter's own tensors, which the merged checkpoint does not keep apart."""
        carriers = {"net": self.net_g, **({"average": self.averages["g"]} if self.averages else {})}
        tensors = {name: _trained_tensors(net, self.net_g) for name, net in carriers.items()} if self.adapter else {}
        return {**super().extra_state(), "adapter": tensors}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the adapter."""
        super().load_extra_state(state)
        for name, tensors in state["adapter"].items():
            network = self.net_g if name == "net" else self.averages["g"]
            network.load_state_dict({**network.state_dict(), **tensors})

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Check that both networks are the same VQGAN and that there is a prior to start from."""
        super().check_recipe(run, networks)
        for name in ("g", "prior"):
            check_is_vqgan(networks[name], f"network_{name}")
        shapes = [{key: value.shape for key, value in networks[name].state_dict().items()} for name in ("g", "prior")]
        if shapes[0] != shapes[1]:
            raise OptionError("network_prior: must have the sizes of network_g, from which it starts.")
        if not run.path("pretrain_network_prior"):
            raise OptionError(
                "path.pretrain_network_prior: this option is required. It is the checkpoint of stage 1 (VQGANModel) "
                "or a public VQGAN; a randomly initialised prior reconstructs nothing."
            )


def _trained_tensors(network: nn.Module, learner: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of ``network`` that learn in ``learner``."""
    learning = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    return {name: value.detach().cpu() for name, value in network.state_dict().items() if name in learning}
