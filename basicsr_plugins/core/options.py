"""Options are declared once, as a dataclass or as a constructor, and checked against that before training starts.

A data set or a recipe declares a dataclass: each field's annotation is its type, its default is the default, and
``option(...)`` adds the sentence for the docs and an extra check. A loss or a network needs nothing more than its
annotated constructor. Both go through the same ``check_value``.

    >>> from dataclasses import dataclass
    >>> from basicsr_plugins.core.options import option, parse, positive
    >>> @dataclass
    ... class CropOptions:
    ...     gt_size: int = option(128, "side of the square training crop, pixels", check=positive)
    >>> parse(CropOptions, {"gt_siez": 64}, where="datasets.train")
    Traceback (most recent call last):
    basicsr_plugins.core.errors.OptionError: datasets.train.gt_siez: unknown option ... Did you mean 'gt_size'? ...
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Literal, TypeVar, Union

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["check_call", "check_value", "fraction", "non_negative", "option", "parse", "positive", "to_type"]

Schema = TypeVar("Schema")
_REQUIRED = dataclasses.MISSING
_YAML_TYPES = (bool, int, float, str, list, dict)


def option(
    default: Any = _REQUIRED,
    help: str = "",  # noqa: A002 - the field's own word, as in argparse
    *,
    source: str = "",
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """Declare one field of an options dataclass.

    Args:
        default: The default; left out, the option is required. Lists and dicts may be given as they are.
        help: One sentence for the docs.
        source: Where the default comes from ("DCPT config 884c00d"); empty means it is ours.
        check: Returns what is wrong with a value of the right type ("must be positive"), or None.
    """
    metadata = {"help": help, "source": source, "check": check}
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def positive(value: float) -> str | None:
    """Check that a number is above zero."""
    return None if value > 0 else "must be above 0"


def non_negative(value: float) -> str | None:
    """Check that a number is not below zero."""
    return None if value >= 0 else "must be 0 or more"


def fraction(value: float) -> str | None:
    """Check that a number lies in [0, 1]."""
    return None if 0 <= value <= 1 else "must lie between 0 and 1"


def parse(schema: type[Schema], given: Mapping[str, Any], where: str, *, ignore: Iterable[str] = ()) -> Schema:
    """Return an instance of the options dataclass ``schema``, filled from ``given`` and checked.

    Args:
        schema: A dataclass whose fields are declared with ``option``.
        given: The mapping from the option file.
        where: Its YAML path, for the messages ("datasets.train").
        ignore: Keys that belong to somebody else (``type``, ``name`` ...) and are passed over.

    Raises:
        OptionError: An unknown key, a missing one, a wrong type or a refused value.
    """
    if not isinstance(given, Mapping):
        raise OptionError(f"{where}: expected a mapping of options, got {_shown(given)}.")
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}  # type: ignore[arg-type]  # a dataclass, which no bound can say
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in fields:
            values[key] = check_value(value, hints[key], f"{where}.{key}", fields[key].metadata.get("check"))
        elif key not in set(ignore):
            raise OptionError(f"{where}.{key}: {one_of(key, fields, 'option')}")
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is _REQUIRED and field.default_factory is _REQUIRED
    ]
    if missing:
        raise OptionError(f"{where}.{missing[0]}: this option is required. {_help(fields[missing[0]])}".rstrip())
    return schema(**values)


def check_call(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``given`` checked against the arguments of ``function`` (a constructor or a plain function).

    Arguments without an annotation accept anything, and ``**kwargs`` accepts any name.

    Raises:
        OptionError: An unknown or missing argument, or a value of another type than the annotation says.
    """
    signature = inspect.signature(function)
    try:
        target = function.__init__ if inspect.isclass(function) else function
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):  # somebody else's annotations, not resolvable here: names are still checked
        hints = {}
    names = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in names:
            values[key] = check_value(value, hints[key], f"{where}.{key}") if key in hints else value
        elif open_ended:
            values[key] = value
        else:
            raise OptionError(f"{where}.{key}: {one_of(key, names, 'option')}")
    for name, parameter in names.items():
        if parameter.default is parameter.empty and name not in values:
            raise OptionError(f"{where}.{name}: this option is required.")
    return values


def check_value(value: Any, annotation: Any, where: str, check: Callable[[Any], str | None] | None = None) -> Any:
    """Return ``value`` as the annotated type, or say what is wrong with it.

    Raises:
        OptionError: The value does not fit. An integer is taken where a float is asked for, nothing else is converted.
    """
    schema = _schema_in(annotation)
    if schema is not None and isinstance(value, Mapping):
        return parse(schema, value, where)
    fitted, problem = to_type(value, annotation)
    if problem:
        raise OptionError(f"{where}: expected {problem}, got {_shown(value)}.{_float_hint(value, annotation)}")
    if check is not None and fitted is not None:
        complaint = check(fitted)
        if complaint:
            raise OptionError(f"{where}: {complaint}, got {_shown(value)}.")
    return fitted


def _schema_in(annotation: Any) -> Any:
    """Return the options dataclass that an annotation is or allows (``Optional[SPNSettings]``), else None."""
    choices = typing.get_args(annotation) if _is_union(typing.get_origin(annotation)) else (annotation,)
    return next((choice for choice in choices if dataclasses.is_dataclass(choice)), None)


def to_type(value: Any, annotation: Any) -> tuple[Any, str]:
    """Return ``(value as that type, "")``, or ``(value, what was expected)`` where it does not fit."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or isinstance(annotation, (str, TypeVar)) or annotation is inspect.Parameter.empty:
        return value, ""
    if _is_union(origin):
        return _fit_union(value, arguments)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in arguments)
        return value, "" if fits else "one of " + ", ".join(repr(choice) for choice in arguments)
    if annotation is None or annotation is type(None):
        return value, "" if value is None else "nothing (~)"
    if annotation is float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return value, "a number"
        try:
            return float(value), ""
        except OverflowError:  # a whole number of more than 308 digits
            return value, "a number that a float can hold"
    if annotation is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
        return value, "" if fits else "a whole number"
    if annotation is bool:
        return value, "" if isinstance(value, bool) else "true or false"
    if annotation is str:
        return value, "" if isinstance(value, str) else "text"
    container = origin or annotation
    if (inspect.isclass(container) and issubclass(container, (list, tuple))) or _is_abstract(container, "Sequence"):
        return _fit_sequence(value, container, arguments)
    if (inspect.isclass(container) and issubclass(container, dict)) or _is_abstract(container, "Mapping"):
        return _fit_mapping(value, arguments)
    if dataclasses.is_dataclass(container) and isinstance(value, _YAML_TYPES):
        return value, "a mapping of options"
    if inspect.isclass(container) and isinstance(value, _YAML_TYPES) and not _takes(container, value):
        return value, f"a {container.__name__}"  # an object that only a Python caller can give
    return value, ""


def _takes(container: type, value: Any) -> bool:
    try:
        return isinstance(value, container) or (isinstance(value, str) and issubclass(container, os.PathLike))
    except TypeError:  # a protocol that cannot be asked
        return True


def _fit_union(value: Any, choices: tuple[Any, ...]) -> tuple[Any, str]:
    problems = []
    # exact types first, so that 1 stays an int under Union[float, int]
    for choice in sorted(choices, key=lambda choice: choice is float):
        fitted, problem = to_type(value, choice)
        if not problem:
            return fitted, ""
        problems.append((choice, problem))
    # torch writes "float or Tensor": whoever writes an option file is told of the number alone
    plain = [
        problem
        for choice, problem in problems
        if getattr(choice, "__module__", "") in ("builtins", "typing") or dataclasses.is_dataclass(choice)
    ]
    return value, " or ".join(dict.fromkeys(plain or [problem for _, problem in problems]))


def _fit_sequence(value: Any, container: Any, arguments: tuple[Any, ...]) -> tuple[Any, str]:
    if not isinstance(value, (list, tuple)):
        return value, "a list"
    as_tuple = container is tuple
    if as_tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            return value, f"a list of {len(arguments)} values"
        kinds: Iterable[Any] = arguments
    else:
        kinds = [arguments[0] if arguments else Any] * len(value)
    items = []
    for item, kind in zip(value, kinds):
        fitted, problem = to_type(item, kind)
        if problem:
            return value, f"a list in which each value is {problem}"
        items.append(fitted)
    return (tuple(items) if as_tuple else items), ""


def _fit_mapping(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, str]:
    if not isinstance(value, Mapping):
        return value, "a mapping"
    if len(arguments) != 2:
        return value, ""
    items = {}
    for key, item in value.items():
        fitted, problem = to_type(item, arguments[1])
        if problem:
            return value, f"a mapping in which each value is {problem}"
        items[key] = fitted
    return items, ""


def _is_union(origin: Any) -> bool:
    return origin is Union or getattr(origin, "__name__", "") == "UnionType"


def _is_abstract(container: Any, name: str) -> bool:
    return getattr(container, "__module__", "") == "collections.abc" and getattr(container, "__name__", "") == name


def _help(field: dataclasses.Field[Any]) -> str:
    text = field.metadata.get("help", "")
    return f"It is the {text}." if text else ""


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def _float_hint(value: Any, annotation: Any) -> str:
    # YAML 1.1 reads 1e-4 as text: the one type error that every BasicSR user meets
    if isinstance(value, str) and to_type(1.0, annotation)[1] == "":
        try:
            number = float(value)
        except ValueError:
            return ""
        return f" YAML reads {value} as text: write !!float {value} or {number!r}."
    return ""
