"""VQGAN: the auto-encoder with a discrete code that serves as content prior (arXiv 2012.09841; used in 2502.12600)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.archs._vqgan_blocks import AutoEncoderSizes, Decoder, Encoder
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.core.padding import crop_to, pad_to_multiple
from basicsr_plugins.core.registration import provides

__all__ = ["VQGAN", "Quantised", "VQGANOutput", "VectorQuantizer", "code_distances", "codebook_loss"]


class Quantised(NamedTuple):
    """What the quantiser returns."""

    #: The nearest codes, (n, d, h, w); the gradient of what follows goes straight through to the latent.
    codes: torch.Tensor
    #: The number of the nearest code at each position, (n, h, w), int64.
    indices: torch.Tensor
    #: The codebook loss, a scalar.
    loss: torch.Tensor


class VQGANOutput(NamedTuple):
    """Everything one forward pass of ``VQGAN(..., full=True)`` computes."""

    #: The reconstruction, (n, 3, h, w), in the range of the input.
    image: torch.Tensor
    #: The latent in front of the quantiser, (n, d, h / f, w / f).
    latent: torch.Tensor
    #: Its nearest codes, same shape; straight-through gradient.
    codes: torch.Tensor
    #: The codes' numbers, (n, h / f, w / f).
    indices: torch.Tensor
    #: The codebook loss, a scalar.
    codebook_loss: torch.Tensor


def code_distances(latent: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Return the squared Euclidean distance of every position to every code.

    Args:
        latent: (n, d, h, w).
        codebook: (k, d).

    Returns:
        (n, h, w, k).
    """
    flat = latent.movedim(1, -1)
    return flat.square().sum(-1, keepdim=True) + codebook.square().sum(1) - 2 * flat @ codebook.t()


def codebook_loss(latent: torch.Tensor, codes: torch.Tensor, beta: float, legacy: bool) -> torch.Tensor:
    """Return the loss that draws codes and latents together.

    The published code weighs the *codebook* term (codes move to latents) by ``beta``, the paper the *commitment* term
    (latents move to codes): ``legacy`` keeps what was published. Its value is the same either way, its gradient not.

    Args:
        latent: Encoder output, (n, d, h, w).
        codes: Nearest codes without straight-through, (n, d, h, w).
        beta: Weight of the lesser term.
        legacy: True for the published order of the terms.
    """
    commitment = F.mse_loss(latent, codes.detach())
    codebook = F.mse_loss(codes, latent.detach())
    return commitment + beta * codebook if legacy else codebook + beta * commitment


class VectorQuantizer(nn.Module):
    """Replace each position's vector by the nearest of ``n_embed`` learned codes.

    Args:
        n_embed: Number of codes k.
        embed_dim: Their length d.
        beta: Weight of the lesser term of the codebook loss; 0.25 as published.
        legacy: See ``codebook_loss``.
    """

    def __init__(self, n_embed: int, embed_dim: int, beta: float = 0.25, legacy: bool = True) -> None:
        super().__init__()
        self.beta, self.legacy = beta, legacy
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_embed, 1 / n_embed)

    def forward(self, latent: torch.Tensor) -> Quantised:
        """Quantise a latent of shape (n, d, h, w)."""
        # distances decide by tiny differences: keep them in float32 under autocast
        with torch.autocast(device_type=latent.device.type, enabled=False), torch.no_grad():
            indices = code_distances(latent.float(), self.embedding.weight.float()).argmin(-1)
        codes = self.lookup(indices).to(latent.dtype)
        loss = codebook_loss(latent.float(), codes.float(), self.beta, self.legacy)
        # the value is the code to the last bit, the gradient is the latent's
        return Quantised(codes.detach() + (latent - latent.detach()), indices, loss)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the codes of ``indices`` (n, h, w) as a map (n, d, h, w)."""
        return self.embedding(indices).permute(0, 3, 1, 2)


@provides("arch")
class VQGAN(HubNetwork):
    """VQGAN of "Taming Transformers" (arXiv 2012.09841) with the state-dict keys of the public checkpoints.

    Public sizes: ``ch: 128, num_res_blocks: 2, z_channels: 256, resolution: 256, n_embed: 1024 or 16384,
    embed_dim: 256`` with ``ch_mult: [1, 1, 2, 2, 4], attn_resolutions: [16]`` (f16) or ``ch_mult: [1, 1, 2, 4],
    attn_resolutions: [32]`` (f8).

    Args:
        ddconfig: Sizes of encoder and decoder, spelt as in the public configuration files: ``z_channels``,
            ``resolution``, ``ch``, ``ch_mult``, ``num_res_blocks``, ``attn_resolutions``, and optionally
            ``in_channels`` (3), ``out_ch`` (3), ``dropout`` (0.0), ``double_z`` (false; true belongs to another model).
        n_embed: Number of codes.
        embed_dim: Length of a code.
        beta: Weight inside the codebook loss (published: 0.25).
        legacy: True keeps the published order of the codebook loss' terms, False the paper's; see ``codebook_loss``.
        unit_range: True for images in [0, 1], as BasicSR holds them: they are mapped to the network's [-1, 1] and back.
            False feeds and returns [-1, 1] untouched.

    Raises:
        OptionError: ``ddconfig`` holds an unknown or missing key, or sizes that cannot be built.

    Example:
        .. code-block:: yaml

            network_g:
              type: VQGAN
              n_embed: 1024
              embed_dim: 256
              unit_range: true
              ddconfig: {ch: 128, ch_mult: [1, 1, 2, 4], num_res_blocks: 2, attn_resolutions: [32], resolution: 256,
                         z_channels: 256}
    """

    def __init__(
        self,
        ddconfig: Mapping[str, Any],
        n_embed: int,
        embed_dim: int,
        beta: float = 0.25,
        legacy: bool = True,
        unit_range: bool = False,
    ) -> None:
        super().__init__()
        sizes = AutoEncoderSizes.checked(ddconfig, "VQGAN.ddconfig")
        for name, number in (("n_embed", n_embed), ("embed_dim", embed_dim)):
            if number < 1:
                raise OptionError(f"VQGAN.{name}: must be at least 1, got {number}.")
        self.unit_range = unit_range
        self.encoder = Encoder(sizes)
        self.decoder = Decoder(sizes)
        self.quantize = VectorQuantizer(n_embed, embed_dim, beta, legacy)
        self.quant_conv = nn.Conv2d(sizes.z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, sizes.z_channels, 1)
        #: What the sides of the latent's images are multiples of: the factor f.
        self.multiple_of = 2 ** (len(sizes.ch_mult) - 1)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latent (n, d, h / f, w / f) of images (n, 3, h, w), before quantisation."""
        sides = list(images.shape[-2:])
        if any(side % self.multiple_of for side in sides):
            fitting = [-(-side // self.multiple_of) * self.multiple_of for side in sides]
            raise OptionError(
                f"VQGAN.encode: sides must be multiples of {self.multiple_of}, got {sides[0]} x {sides[1]}. "
                f"Pad to {fitting[0]} x {fitting[1]}; calling the network itself does that."
            )
        return self.quant_conv(self.encoder(images * 2 - 1 if self.unit_range else images))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the images (n, 3, h, w) of codes (n, d, h / f, w / f)."""
        images = self.decoder(self.post_quant_conv(codes))
        return (images + 1) / 2 if self.unit_range else images

    def decode_indices(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the images (n, 3, h, w) that code numbers (n, h / f, w / f) stand for."""
        return self.decode(self.quantize.lookup(indices))

    @staticmethod
    def own_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
        """Return a checkpoint's weights without the loss networks (``loss.*``) that public files hold as well.

        Raises:
            CheckpointError: The file is of the Gumbel variant, whose quantiser is another network.
        """
        if "quantize.embed.weight" in weights:
            raise CheckpointError(
                "VQGAN: this checkpoint is of the Gumbel variant (it holds quantize.embed.weight); "
                "take one with a nearest-neighbour codebook (quantize.embedding.weight)."
            )
        return {key: value for key, value in weights.items() if not key.startswith("loss.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a state dict, ours or a public one; see ``own_weights``."""
        return super().load_state_dict(self.own_weights(state_dict), *args, **kwargs)

    def last_layer(self) -> torch.Tensor:
        """Return the decoder's last weight, at which the adversarial loss' adaptive weight is measured."""
        return self.decoder.conv_out.weight

    def forward(self, images: torch.Tensor, full: bool = False) -> torch.Tensor | VQGANOutput:
        """Reconstruct images of any size.

        Args:
            images: (n, 3, h, w); range: see ``unit_range``. Where f does not divide the sides, they are padded by
                reflection, and the result is cut back.
            full: Also return latent and codes (of the padded images), their numbers and the codebook loss.
        """
        latent = self.encode(pad_to_multiple(images, self.multiple_of))
        codes, indices, loss = self.quantize(latent)
        restored = crop_to(self.decode(codes), *images.shape[-2:])
        return VQGANOutput(restored, latent, codes, indices, loss) if full else restored
