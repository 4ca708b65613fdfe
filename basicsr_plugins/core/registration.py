"""What this package provides, and how it gets into BasicSR's registries without ever touching a stock entry.

``@provides("arch")`` marks a class or function. Nothing of BasicSR is needed for that, so every network, loss and data
set also works where BasicSR is not installed. ``connect()`` imports our modules and hands what they provide to
BasicSR's five registries; names that BasicSR (or another plug-in) already has stay theirs, ours gets a suffix.
"""

from __future__ import annotations

import functools
import importlib
import logging
import pkgutil
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from basicsr_plugins.core import plugins
from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["KINDS", "connect", "disconnect", "is_connected", "lookup", "origin", "provided", "provides", "renamed"]

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
#: Where an object comes from that is not this package's own: kind -> name -> "distribution version" or a module.
_origins: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
_renamed: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
_registries: dict[str, Any] = {}
_logger = logging.getLogger("basicsr")


def provides(kind: str, name: str | None = None) -> Callable[[Provided], Provided]:
    """Mark a class or function as something this package adds to BasicSR.

    Args:
        kind: ``arch``, ``loss``, ``dataset``, ``metric``, ``model`` or ``degradation``.
        name: The name in option files; the object's own name if left out.

    Example::

        @provides("loss")
        class MyLoss(nn.Module): ...
    """
    if kind not in KINDS:
        raise OptionError(one_of(kind, KINDS, "kind"))

    def mark(thing: Provided) -> Provided:
        module = thing.__module__
        _add(kind, name or thing.__name__, thing, "" if module.startswith("basicsr_plugins.") else module)
        return thing

    return mark


def _add(kind: str, label: str, thing: Any, origin: str) -> None:
    """Take an object in; ``origin`` is empty for our own."""
    known = _provided[kind].get(label)
    if origin and known is not None and known is not thing and label not in _origins[kind]:
        _logger.warning("basicsr_plugins: %s %r of %s has the name of ours, which stays.", kind, label, origin)
        return
    _provided[kind][label] = thing
    if origin:
        _origins[kind][label] = origin
    if _registries:  # also where connect() ran while this module was still loading (a spawned data-loader worker)
        _hand_over(kind, label, thing)


def provided(kind: str) -> dict[str, Any]:
    """Return every object of one kind by name: ours, and what other packages add through entry points."""
    _import_modules(kind)
    return dict(_provided[kind])


def origin(kind: str, name: str) -> str:
    """Return where an object comes from that is not this package's own ("my_package 1.0"), else an empty text."""
    return _origins[kind].get(name, "")


def renamed(kind: str) -> dict[str, str]:
    """Return ``our name -> registered name`` for the names that BasicSR already had."""
    return dict(_renamed[kind])


def lookup(kind: str, name: str, where: str = "") -> Any:
    """Return the object of one kind and name: the registered one where BasicSR is loaded, else ours.

    Raises:
        OptionError: There is no such name; the text lists the nearest ones.
    """
    if not isinstance(name, str):
        raise OptionError(f"{where or kind}: expected the name of a {kind}, got {name!r}.")
    if plugins.is_path(name) and name not in _provided[kind]:
        _add(kind, name, plugins.resolve(name, where or kind), name.split(":", maxsplit=1)[0])
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
        for kind, registry in registries.items():
            _give_way(kind, registry)
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
    for name, thing, where_from in plugins.entry_points(kind):
        _add(kind, name, thing, where_from)


def _give_way(kind: str, registry: Any) -> None:
    """Let a registration that comes after ours have the name: ours moves to its suffix, and BasicSR does not assert.

    A program that registers a name of ours later, as hat and realesrgan do, must run as it does without this package.
    """
    stock_register = registry._do_register
    if getattr(stock_register, "basicsr_plugins_patched", False):
        return

    @functools.wraps(stock_register)
    def _do_register(name: str, obj: Any, *args: Any, **kwargs: Any) -> Any:
        suffix = args[0] if args else kwargs.get("suffix")
        label = f"{name}_{suffix}" if isinstance(suffix, str) else name
        ours = _provided[kind].get(label)
        if ours is not None and obj is not ours and dict(iter(registry)).get(label) is ours:
            aside = f"{label}_{SUFFIX}"
            del registry._obj_map[label]
            registry._obj_map[aside] = ours
            _renamed[kind][label] = aside
            _logger.warning(
                "basicsr_plugins: %s %r is registered by %s, whose name it is from here on; ours is %r.",
                kind, label, getattr(obj, "__module__", "?"), aside,
            )  # fmt: skip
        return stock_register(name, obj, *args, **kwargs)

    _do_register.basicsr_plugins_patched = True  # type: ignore[attr-defined]
    registry._do_register = _do_register


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
