"""Tell BasicSR about basicsr_plugins, in any program that imports BasicSR, without a line of code in that program.

This file stands beside the package in site-packages. ``basicsr_plugins.pth`` (and, from Python 3.15 on,
``basicsr_plugins.start``) calls ``install()`` when Python starts. That puts two small objects on ``sys.meta_path`` and
does nothing else: a process that never imports ``basicsr`` loads no further module. When ``basicsr.models`` has been
imported (all five registries are complete by then) the first one calls ``basicsr_plugins.register()`` and is gone.

    BASICSR_PLUGINS_AUTOLOAD=0   switches all of this off
    BASICSR_PLUGINS_STRICT=1     lets a failure of ours raise instead of warn
"""

import sys

TYPE_CHECKING = False  # typing's own would have to be imported, at the start of every Python program
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType
    from typing import Any, Optional
else:
    Loader = object

__all__ = ["install", "install_compat", "withdraw_stand_in"]

#: The import that, once finished, means that BasicSR's registries are complete.
SIGNAL = "basicsr.models"
#: Modules that BasicSR 1.4.2 imports and that are gone: from torchvision 0.17 on, and from Python 3.12 on (there
#: setuptools has a distutils of its own, where its start-up file runs: not below ``pip install --target``).
REMOVED = ("torchvision.transforms.functional_tensor", "distutils", "distutils.version")
REGISTRIES = ("ARCH_REGISTRY", "DATASET_REGISTRY", "LOSS_REGISTRY", "METRIC_REGISTRY", "MODEL_REGISTRY")


def install() -> None:
    """Wait for BasicSR. Idempotent (``site`` reads a ``.pth`` twice in some virtual environments) and never raises."""
    try:
        import os  # loaded by site before any .pth line runs

        if os.environ.get("BASICSR_PLUGINS_AUTOLOAD", "1").strip().lower() in ("0", "false", "off", "no"):
            return
        install_compat()
        if SIGNAL in sys.modules:
            if not getattr(getattr(sys.modules[SIGNAL], "__spec__", None), "_initializing", False):
                _register()
        elif not _installed("SignalFinder"):
            sys.meta_path.insert(0, SignalFinder())
    except Exception as error:  # never break the start of somebody else's program
        _warn(error)


def install_compat() -> None:
    """Let BasicSR 1.4.2 import on a torchvision without ``functional_tensor``, without ``distutils``. Idempotent."""
    if not _installed("CompatFinder"):
        sys.meta_path.append(CompatFinder())  # last: where the module exists, it answers for itself


class SignalFinder:
    """Wraps the loader of ``basicsr.models``, which the other finders find, so that ``_register`` runs after it."""

    basicsr_plugins_role = "SignalFinder"

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        if name != SIGNAL:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = SignalLoader(spec.loader, spec)
                return spec
        sys.meta_path.insert(0, self)  # this basicsr has no models (yet): go on waiting
        return None


class SignalLoader(Loader):
    """The original loader, followed by ``_register``. Every other attribute is the original's."""

    def __init__(self, loader: "Any", spec: "ModuleSpec") -> None:
        self._loader = loader
        self._spec = spec

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "Optional[ModuleType]":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        # pickling, inspect and reload use the original loader
        self._spec.loader = module.__loader__ = self._loader
        try:
            self._loader.exec_module(module)
        except BaseException:
            sys.meta_path.insert(0, SignalFinder())  # for a second attempt at the import
            raise
        _register()


class CompatFinder:
    """Answers for the modules of ``REMOVED``, for BasicSR alone and only where there are none."""

    basicsr_plugins_role = "CompatFinder"

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        if name not in REMOVED or not _asked_by_basicsr():
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, CompatLoader(), is_package=name == "distutils")


class CompatLoader(Loader):
    """Fills the stand-in: with what torchvision moved to ``_functional_tensor``, or with a comparison of versions."""

    def create_module(self, spec: "ModuleSpec") -> None:
        return None

    def exec_module(self, module: "ModuleType") -> None:
        if module.__name__ == "distutils.version":
            vars(module)["LooseVersion"] = _numbers_of
        if module.__name__.startswith("distutils"):
            return
        try:
            from torchvision.transforms import _functional_tensor as moved
        except ImportError:
            from torchvision.transforms import functional as moved
        for name in dir(moved):
            if not name.startswith("__"):
                setattr(module, name, getattr(moved, name))


def _asked_by_basicsr() -> bool:
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "basicsr" or name.startswith("basicsr."):
            return True
        if name != __name__ and not name.startswith(("importlib", "_frozen_importlib")):
            return False
        frame = frame.f_back
    return False


def _installed(role: str) -> bool:
    return any(getattr(finder, "basicsr_plugins_role", None) == role for finder in sys.meta_path)


def _numbers_of(version: str) -> "list[int]":
    import re

    return [int(number) for number in re.findall(r"\d+", version)]  # BasicSR only asks for >=


def withdraw_stand_in() -> None:
    """Remove the stand-ins once BasicSR has imported them, so that no other package sees them."""
    for name in REMOVED:
        stand_in = sys.modules.get(name)
        if isinstance(getattr(getattr(stand_in, "__spec__", None), "loader", None), CompatLoader):
            del sys.modules[name]
            folder, _, last = name.rpartition(".")
            if getattr(sys.modules.get(folder), last, None) is stand_in:
                delattr(sys.modules[folder], last)


def _register() -> None:
    import os

    withdraw_stand_in()
    registry = sys.modules.get("basicsr.utils.registry")
    if not all(hasattr(registry, name) for name in REGISTRIES):
        return  # a fork that only shares the name
    try:
        import basicsr_plugins

        basicsr_plugins.register()
    except Exception as error:
        if os.environ.get("BASICSR_PLUGINS_STRICT", "0").strip().lower() in ("1", "true", "on", "yes"):
            raise
        _warn(error)


def _warn(error: Exception) -> None:
    try:
        sys.stderr.write(
            "basicsr_plugins could not register itself (%s: %s). BasicSR continues without it; set "
            "BASICSR_PLUGINS_STRICT=1 to see the whole error, BASICSR_PLUGINS_AUTOLOAD=0 to switch it off.\n"
            % (type(error).__name__, error)
        )
        import logging

        logging.getLogger("basicsr").debug("basicsr_plugins: registration failed", exc_info=True)
    except Exception:
        pass
