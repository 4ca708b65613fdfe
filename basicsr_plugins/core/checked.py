"""A section of an option file that carries what the check has read from it, so that nothing is parsed twice."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Optional, TypeVar

from basicsr_plugins.core.options import parse

__all__ = ["CheckedSection", "result_of", "settings_of"]

Result = TypeVar("Result")


class CheckedSection(OrderedDict[str, Any]):
    """The section as BasicSR passes it around, with the result of its check.

    BasicSR copies options deeply before it builds anything; the copy keeps the result. A section whose content was
    changed after the check has none any more.

    Args:
        content: The section.
        result: What was read from it: an options dataclass, or the plan of a data set.

    Example:
        >>> section = CheckedSection({"gt_size": 64}, 64)
        >>> result_of(copy.deepcopy(section), int)
        64
        >>> section["gt_size"] = 128
        >>> result_of(section, int)
    """

    def __init__(self, content: Mapping[str, Any], result: Any) -> None:
        super().__init__(content)
        self._result = result
        self._content_read = copy.deepcopy(dict(content))

    @property
    def result(self) -> Any:
        """What was read, None where the content is another one by now."""
        return self._result if dict(self) == self._content_read else None

    def __deepcopy__(self, memo: dict[int, Any]) -> OrderedDict[str, Any]:
        content = OrderedDict((key, copy.deepcopy(value, memo)) for key, value in self.items())
        return content if self.result is None else CheckedSection(content, self.result)

    def __reduce__(self) -> Any:
        return OrderedDict, (list(self.items()),)


def result_of(section: Any, kind: type[Result]) -> Optional[Result]:
    """Return what the check has read from a section, if it has, is of that kind, and still belongs to the content."""
    result = section.result if isinstance(section, CheckedSection) else None
    return result if isinstance(result, kind) else None


def settings_of(section: Any, schema: type[Result], where: str) -> Result:
    """Return the settings of a section: those of the check, else the section parsed now.

    Args:
        section: The section; None counts as an empty one.
        schema: Its options dataclass.
        where: Its YAML path, for messages.

    Raises:
        OptionError: See ``basicsr_plugins.core.options.parse``.
    """
    found = result_of(section, schema)
    return parse(schema, section or {}, where) if found is None else found
