"""The modules that DCPT taps in each network, by name."""

from __future__ import annotations

from torch import nn

from basicsr_plugins.core.errors import OptionError

__all__ = ["preset_layers"]


def preset_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules whose outputs DCPT would tap, finest feature first.

    Our networks say so themselves (``feature_layers``). For BasicSR's own the paper's rule is applied, the second half
    of the blocks: the last half of SwinIR's groups (DCPT's ``decode_layers``), and of RCAN's groups and EDSR's
    blocks, for which DCPT published nothing, the last five at most.

    Args:
        network: The bare network, not wrapped for parallel training.

    Raises:
        OptionError: There is no preset for this class.
    """
    own = getattr(network, "feature_layers", None)
    if own:
        return tuple(own)
    kind = type(network).__name__
    for name, attribute, most in (("SwinIR", "layers", None), ("RCAN", "body", 5), ("EDSR", "body", 5)):
        blocks = getattr(network, attribute, None)
        if any(base.__name__ == name for base in type(network).__mro__) and blocks is not None:
            count = len(blocks)
            taken = count - count // 2 if most is None else min(most, count - count // 2)
            return tuple(f"{attribute}.{index}" for index in range(count - 1, count - 1 - taken, -1))
    raise OptionError(
        f"feature_layers: there is no preset for {kind}. Name the modules to tap, finest first, "
        "as print(network) or dict(network.named_modules()) shows them."
    )
