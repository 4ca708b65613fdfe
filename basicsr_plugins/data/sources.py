"""The images of one folder, or the pairs of two, each with a name that the results of both sides share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from basicsr_plugins.core.errors import DataError, OptionError, one_of
from basicsr_plugins.core.unique_names import UniqueNames
from basicsr_plugins.data.files import first_few, image_files
from basicsr_plugins.data.pairing import PAIR_RULES, check_rule, fitting_rule, pair_up

__all__ = ["RULES", "Source", "find_sources"]

#: Pairing rules that go by the names in two folders.
RULES = tuple(
    rule for rule in PAIR_RULES if rule.partition(":")[0] in ("same", "same_stem", "prefix", "replace", "append")
)


@dataclass(frozen=True)
class Source:
    """One image, or a pair.

    Args:
        name: Relative path without an ending, which no other source has, whatever the file system.
        files: The clean image and, of a pair, the degraded one.
    """

    name: str
    files: tuple[Path, ...]


def find_sources(
    folder: Path,
    lq_folder: Optional[Path] = None,
    *,
    rule: str = "same_stem",
    recursive: bool = False,
    leave_out: Sequence[Optional[Path]] = (None, None),
) -> tuple[list[Source], list[Path]]:
    """Return the images of a folder, or the pairs of two, sorted, and the clean images that have no degraded one.

    ``a.png`` is called ``a``, and ``a.png`` where there is an ``a.jpg`` too. A pair is called as its clean image, and
    where several degraded images share that, as its degraded one.

    Args:
        folder: Of the images, or of the clean ones.
        lq_folder: Of the degraded ones.
        rule: How names pair; see ``basicsr_plugins.data.pairing.PAIR_RULES``.
        recursive: Take sub-folders too.
        leave_out: Of each folder, a sub-folder that is not looked into (the output).

    Raises:
        OptionError: A rule that is not one on names.
        DataError: No folder, no image, or a degraded image without a clean one.
    """
    if lq_folder is None:
        files = image_files(folder, "INPUT", recursive, leave_out=leave_out[0])
        return [Source(name, (file,)) for file, name in zip(files, _names([(folder, file) for file in files]))], []
    kind, argument = _rule(rule)
    gt_files = image_files(folder, "INPUT", recursive, leave_out=leave_out[0])
    lq_files = image_files(lq_folder, "--pair", recursive, leave_out=leave_out[1])
    pairing = pair_up(lq_files, gt_files, lq_folder, folder, kind, argument)
    if pairing.missing:
        raise DataError(_unpaired(pairing.missing, rule, lq_folder, folder, recursive))
    if pairing.ambiguous:
        raise DataError(
            f"--pair: {len(pairing.ambiguous)} degraded image(s) have two clean ones: {first_few(pairing.ambiguous)}. "
            "Take one of the two away, or use --pair-rule same."
        )
    uses = Counter(gt for _, gt in pairing.pairs)
    named = [(folder, gt) if uses[gt] == 1 else (lq_folder, lq) for lq, gt in pairing.pairs]
    sources = [Source(name, (gt, lq)) for name, (lq, gt) in zip(_names(named), pairing.pairs)]
    return sources, pairing.unused


def _names(files: Sequence[tuple[Path, Path]]) -> list[str]:
    relative = [file.relative_to(root) for root, file in files]
    stems = Counter(path.with_suffix("").as_posix().lower() for path in relative)
    taken, names = UniqueNames(), []
    for path in relative:
        stem, whole = path.with_suffix("").as_posix(), path.as_posix()
        name = taken.take(*([f"{stem}.png"] if stems[stem.lower()] == 1 else []), f"{whole}.png")
        names.append(name[: -len(".png")])
    return names


def _rule(rule: str) -> tuple[str, str]:
    if rule.partition(":")[0] not in {known.partition(":")[0] for known in RULES}:
        raise OptionError(f"--pair-rule: {one_of(rule, RULES, 'pairing rule')}")
    return check_rule(rule, "--pair-rule")


def _unpaired(missing: Sequence[str], rule: str, lq_folder: Path, folder: Path, recursive: bool) -> str:
    fitting = fitting_rule(lq_folder, folder, "--pair-rule", recursive)
    hint = f" --pair-rule '{fitting}' pairs them all." if fitting and fitting != rule else ""
    return f"--pair: {len(missing)} degraded image(s) have no clean one: {first_few(missing)}.{hint}"
