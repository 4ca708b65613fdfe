"""basicsr_plugins: restoration recipes for stock, un-forked BasicSR.

Importing this package costs nothing: torch, basicsr, peft and mmengine load only when something that needs them is
used. ``register()`` makes everything known to BasicSR's registries; after ``pip install`` it runs by itself as soon as
a program has imported ``basicsr`` (see ``docs/how_it_hooks_in.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from basicsr_plugins.restore.restorer import load_restorer as load_restorer

__version__ = "0.1.0"

__all__ = ["__version__", "load_restorer", "register"]


def __getattr__(name: str) -> Any:
    # torch comes with the first use
    if name == "load_restorer":
        from basicsr_plugins.restore.restorer import load_restorer

        return load_restorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
