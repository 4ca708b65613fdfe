"""What a state dict says about its network: one function per network that reads the arguments from keys and shapes.

``VARIANTS`` maps our network names to a ``Variant``: the keys by which it is recognised, the renaming of DCPT's keys,
the constructor arguments that the weights show, and what may be dropped or filled in.
"""

from __future__ import annotations

from basicsr_plugins.checkpoints.variants.common import Shapes, Variant, guess, shapes_of
from basicsr_plugins.checkpoints.variants.convnets import CLASSIFIER, FFANET, NAFNET, NAFNET_LOCAL
from basicsr_plugins.checkpoints.variants.swin import DCPT_SWINIR, SWINIR
from basicsr_plugins.checkpoints.variants.transformers import DEHAZEFORMER, IDT, PROMPTIR, RESTORMER

__all__ = ["VARIANTS", "Shapes", "Variant", "guess", "shapes_of"]

# PromptIR has all of Restormer's marks, NAFNetLocal all of NAFNet's and SwinIR all of DCPTSwinIR's: the order decides
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        PROMPTIR, RESTORMER, NAFNET, NAFNET_LOCAL, SWINIR, DCPT_SWINIR, FFANET, DEHAZEFORMER, IDT, CLASSIFIER,
    )
}  # fmt: skip
