"""What this package provides, and how it gets into BasicSR's registries without ever touching a stock entry.

``@provides("arch")`` marks a class or function. Nothing of BasicSR is needed for that, so every network, loss and data
set also works where BasicSR is not installed. ``connect()`` imports our modules and hands what they provide to
BasicSR's five registries; names that BasicSR (or another plug-in) already has stay theirs, ours gets a suffix.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["KINDS", "connect", "disconnect", "is_connected", "lookup", "provided", "provides", "renamed"]

Provided = TypeVar("Provided", bound=Callable[..., Any])

# kind -> (sub-package, file suffix): the folders are scanned as BasicSR scans its own, so a new file is a new entry.
KINDS: dict[str, tuple[str, str]] = {
    "arch": ("archs", "_arch"),
    "loss": ("losses", "_loss"),
    "dataset": ("data", "_dataset"),
    "metric": ("metrics", "_metric"),
    "model": ("models", "_model"),
    "degradation": ("degradations", "_degradation"),
}
#: The kinds that BasicSR has a registry for.
BASICSR_KINDS = ("arch", "loss", "dataset", "metric", "model")
#: What our name gets where BasicSR already has it.
SUFFIX = "basicsr_plugins"

_provided: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_renamed: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
_registries: dict[str, Any] = {}
_logger = logging.getLogger("basicsr")


def provides(kind: str, name: str | None = None) -> Callable[[Provided], Provided]:
    """Mark a class or function as something this package adds to BasicSR.

    Args:
        kind: ``arch``, ``loss``, ``dataset``, ``metric``, ``model`` or ``degradation``.
        name: The name in option files; the object's own name if left out.

    Example:
        >>> @provides("loss")
        ... class MyLoss: ...
    """
    if kind not in KINDS:
        raise OptionError(one_of(kind, KINDS, "kind"))

    def mark(thing: Provided) -> Provided:
        label = name or thing.__name__
        _provided[kind][label] = thing
        if _registries:  # connect() ran while this module was still loading (a spawned data-loader worker)
            _hand_over(kind, label, thing)
        return thing

    return mark


def provided(kind: str) -> dict[str, Any]:
    """Return every object of one kind that this package provides, by name."""
    _import_modules(kind)
    return dict(_provided[kind])


def renamed(kind: str) -> dict[str, str]:
    """Return ``our name -> registered name`` for the names that BasicSR already had."""
    return dict(_renamed[kind])


def lookup(kind: str, name: str, where: str = "") -> Any:
    """Return the object of one kind and name: the registered one where BasicSR is loaded, else ours.

    Raises:
        OptionError: There is no such name; the text lists the nearest ones.
    """
    registry = _registries.get(kind)
    if registry is not None:
        known = dict(iter(registry))
        for candidate in (name, f"{name}_basicsr"):  # BasicSR itself tries the second one too
            if candidate in known:
                return known[candidate]
    else:
        known = provided(kind)
        if name in known:
            return known[name]
    raise OptionError(f"{where + ': ' if where else ''}{one_of(name, sorted(known), kind)}")


def connect(registries: Mapping[str, Any]) -> None:
    """Hand everything that is provided, now and later, to the registries of BasicSR (by kind). Idempotent."""
    if _registries:
        return
    _registries.update(registries)
    try:
        for kind in KINDS:
            for name, thing in list(_provided[kind].items()):  # what was imported before registration
                _hand_over(kind, name, thing)
            _import_modules(kind)
    except BaseException:
        _registries.clear()  # half registered is not registered: the next call tries again
        raise


def disconnect() -> None:
    """Forget the registries, after a registration that failed half-way."""
    _registries.clear()


def is_connected() -> bool:
    """Whether BasicSR's registries have been given."""
    return bool(_registries)


def _import_modules(kind: str) -> None:
    package_name, suffix = KINDS[kind]
    package = importlib.import_module(f"basicsr_plugins.{package_name}")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.endswith(suffix):
            # import_module only, never "from module import Class": in a spawned data-loader worker the module that is
            # being un-pickled is half loaded at this moment, and its decorators will still run.
            importlib.import_module(f"{package.__name__}.{module.name}")


def _hand_over(kind: str, name: str, thing: Any) -> None:
    registry = _registries.get(kind)
    if registry is None:  # a kind of our own
        return
    taken = dict(iter(registry)).get(name)
    if taken is thing or name in _renamed[kind]:
        return
    if taken is not None:
        ours = f"{name}_{SUFFIX}"
        _renamed[kind][name] = ours
        _logger.warning(
            "basicsr_plugins: %s %r is already registered by %s and stays; ours (%s) is registered as %r.",
            kind, name, getattr(taken, "__module__", "?"), thing.__module__, ours,
        )  # fmt: skip
        name = ours
        if dict(iter(registry)).get(name) is not None:
            return
    registry._do_register(name, thing)
