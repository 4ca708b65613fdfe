"""Objects of other packages: entry points, ``package.module:Class``, and modules that an option file imports."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["entry_points", "import_modules", "is_path", "problems", "refuse_foreign_code", "resolve", "without_code"]

#: A package adds a loss by ``[project.entry-points."basicsr_plugins.loss"]``, ``MyLoss = "my_package.losses:MyLoss"``.
GROUP = "basicsr_plugins."
_logger = logging.getLogger("basicsr")
#: One sentence for each plug-in that could not be loaded; ``doctor`` prints them.
problems: list[str] = []
#: Entry points that have not been loaded yet, by kind.
_waiting: dict[str, list[Any]] = {}
#: Why no code may be imported right now, innermost last; of the whole process, since threads share its modules.
_refusals: list[str] = []


@contextlib.contextmanager
def without_code(reason: str) -> Iterator[None]:
    """Refuse, inside, to import any module that an option file or another data file names; an empty reason allows it.

    Args:
        reason: What refuses it, as a subject: ``--safe``.
    """
    if reason:
        _refusals.append(reason)
    try:
        yield
    finally:
        if reason:
            _refusals.remove(reason)


def _refuse(where: str, what: str) -> None:
    if _refusals:
        raise OptionError(f"{where}: {_refusals[-1]} refuses {what}: importing a module runs its code.")


def entry_points(kind: str) -> Iterator[tuple[str, Any, str]]:
    """Load the entry points of one kind and yield ``(name, object, "distribution version")``, each once.

    One that fails is named in a warning and in ``problems``, and the others go on. One whose package is just being
    imported (it imports us, a spawned loader process unpickles its data set) waits for the next call.
    """
    if kind not in _waiting:
        _waiting[kind] = list(_points(GROUP + kind))
    waiting, _waiting[kind] = _waiting[kind], []
    for point in waiting:
        if _is_being_imported(point.value):
            _waiting[kind].append(point)
            continue
        distribution = getattr(point, "dist", None)
        origin = f"{distribution.name} {distribution.version}" if distribution is not None else point.value
        try:
            thing = point.load()
        except Exception as error:  # whatever somebody else's module raises while it is imported
            _report(f"the plug-in {point.name!r} of {origin} (entry point {GROUP}{kind}) cannot be loaded: {error!r}.")
            continue
        yield point.name, thing, origin


def _is_being_imported(value: str) -> bool:
    """Whether the module of an entry point (``package.module:Class``), or a package around it, is half loaded."""
    module = value.partition(":")[0].strip()
    parts = module.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return any(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False) for name in names)


def _points(group: str) -> Sequence[Any]:
    found: Any = metadata.entry_points()
    if isinstance(found, Mapping):  # Python 3.9
        return list(found.get(group, ()))
    return list(found.select(group=group))


def _report(text: str) -> None:
    if text not in problems:
        problems.append(text)
        _logger.warning("basicsr_plugins: %s BasicSR goes on without it.", text)


def is_path(name: object) -> bool:
    """Whether a ``type`` is written as ``package.module:Class``."""
    return isinstance(name, str) and name.count(":") == 1 and all(part.strip() for part in name.split(":"))


def resolve(name: str, where: str = "type") -> Any:
    """Return the class or function that ``package.module:Class`` names.

    Raises:
        OptionError: The module cannot be imported, or has no such class or function.
    """
    _refuse(where, repr(name))
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module raises
        raise OptionError(f"{where}: {module_name!r} of {name!r} cannot be imported: {error!r}.") from error
    if attribute not in vars(module):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise OptionError(f"{where}: {module_name} has {one_of(attribute, public, 'class or function')}")
    thing = getattr(module, attribute)
    if not callable(thing):
        raise OptionError(f"{where}: {name!r} is a {type(thing).__name__}, expected a class or a function.")
    return thing


def import_modules(names: Any, folder: Path) -> None:
    """Import what stands under ``imports`` of an option file: modules on Python's path, or files beside the file.

    ``my_module`` is ``my_module.py`` beside the option file, if there is one. Its folder goes on Python's path, so that
    spawned data-loader processes find the module under the same name.

    Args:
        names: The option's value: a list of module names or of relative ``.py`` files.
        folder: Where the option file is.

    Raises:
        OptionError: It is no list of names, or one cannot be imported; the path is ``imports[0]`` ...
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise OptionError(f"imports: expected a list of module names, got {names!r}.")
    for position, name in enumerate(names):
        where = f"imports[{position}]"
        _refuse(where, repr(name))
        file = folder / (name if name.endswith(".py") else f"{name.replace('.', '/')}.py")
        if name.endswith(".py") and not file.is_file():
            raise OptionError(f"{where}: there is no file {str(file)!r}.")
        module = name
        if file.is_file():
            root = file.parent if name.endswith(".py") else folder
            module = file.stem if name.endswith(".py") else name
            _refuse_another(module, file, where)
            if str(root) not in sys.path:
                sys.path.insert(0, str(root))
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the module raises
            raise OptionError(f"{where}: {name!r} cannot be imported: {error!r}.") from error


def _refuse_another(module: str, file: Path, where: str) -> None:
    known = getattr(sys.modules.get(module), "__file__", None)
    if module in sys.modules and (known is None or Path(known).resolve() != file.resolve()):
        raise OptionError(f"{where}: a module {module!r} is loaded already ({known}); rename {file.name}.")


def refuse_foreign_code(opt: Any, where: str = "") -> None:
    """Refuse what would import code that an option file names, for ``--safe``, with the path of the option.

    It looks at ``imports`` and at types; ``without_code`` stops whatever is written in another way.

    Raises:
        OptionError: There is ``imports``, or a type written as ``package.module:Class``.
    """
    if not where and isinstance(opt, Mapping) and opt.get("imports"):
        raise OptionError("imports: --safe refuses it: importing a module runs its code.")
    items = opt.items() if isinstance(opt, Mapping) else enumerate(opt) if isinstance(opt, (list, tuple)) else ()
    for key, value in items:
        path = f"{where}.{key}" if where else str(key)
        if key in ("type", "model_type") and is_path(value):
            raise OptionError(f"{path}: --safe refuses {value!r}: importing a module runs its code.")
        refuse_foreign_code(value, path)
