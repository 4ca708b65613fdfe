"""What ``basicsr_plugins.register()`` does: our names into BasicSR's registries, and the patches of its loop."""

from __future__ import annotations

from basicsr_plugins import stock
from basicsr_plugins.core import registration
from basicsr_plugins.launch import patches
from basicsr_plugins.stock import sampler

__all__ = ["register_all"]


def register_all() -> None:
    """Import every module of ours and add what it provides to BasicSR's registries. Idempotent.

    Raises:
        DependencyError: BasicSR cannot be imported, or has no registries.
    """
    if registration.is_connected():
        return
    registries = stock.registries()
    if registration.is_connected():  # importing BasicSR just now has run the start-up hook, which did all of this
        return
    registration.connect(registries)
    try:
        patches.check_options_first()
        sampler.patch()
    except BaseException:
        registration.disconnect()  # half registered is not registered: the next call tries again
        raise
