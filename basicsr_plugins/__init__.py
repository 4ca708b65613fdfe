"""basicsr_plugins: restoration recipes for stock, un-forked BasicSR.

Importing this package costs nothing: torch, basicsr, peft and mmengine load only when something that needs them is
used. ``register()`` makes everything known to BasicSR's registries; after ``pip install`` it runs by itself as soon as
a program has imported ``basicsr`` (see ``docs/how_it_hooks_in.md``).
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__", "register"]


def register() -> str:
    """Add our archs, losses, models, data sets and metrics to BasicSR's registries and return our version.

    Calling it again is harmless. The return value is a plain string so that an option file may hold the call itself
    where no start-up hook can run: ``plugins: !!python/object/apply:basicsr_plugins.register []``.

    Raises:
        DependencyError: BasicSR cannot be imported, or is a fork without registries.
    """
    from basicsr_plugins.launch.register import register_all

    register_all()
    return __version__
