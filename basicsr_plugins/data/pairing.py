"""Which clean file belongs to which degraded one: the naming rules of the public data sets."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basicsr_plugins.core.errors import DataError, OptionError, one_of
from basicsr_plugins.data.files import first_few, image_files
from basicsr_plugins.data.lists import find_listed, list_lines, list_text, split_pair

__all__ = [
    "PAIR_RULES",
    "PUBLISHED_RULES",
    "Pairing",
    "check_rule",
    "fitting_rule",
    "pair_by_name",
    "pair_from_list",
    "pair_up",
]

#: Rule -> what it means.
PAIR_RULES = {
    "same": "same path below lq and gt",
    "same_stem": "same path, the ending may differ",
    "prefix:k": "the first k parts of the lq stem, split at '_', are the gt stem (RESIDE k=1, Outdoor-Rain k=2)",
    "replace:a->b": "in the lq stem, a becomes b; several as 'a->b,c->d' (Rain100 'rain-->norain-', Rain200 'x2->')",
    "append:a": "the gt stem is the lq stem with a at its end (SPA's test set, 'append:gt')",
    "order": "names are unrelated: the n-th lq file belongs to the n-th gt file, in as many files (DPDD)",
    "folder:a->b": "one tree: the folder called a becomes b (GoPro 'blur->sharp', AllWeather 'input->gt')",
    "txtlist": "pair_list names a text file of 'gt lq' lines",
    "json": "pair_list names a JSON file of {image_path, target_path}",
    "concat": "one picture holds both halves side by side (DID)",
    "mat": "arrays (n, h, w, c) in .mat files (UDC)",
}
#: A file name as text and the number behind it, again and again.
_NUMBERS = re.compile(r"(\D*)(\d*)")

#: Rules to try where another one leaves images without a partner.
PUBLISHED_RULES = (
    "same", "same_stem", "prefix:1", "prefix:2", "replace:x2->", "replace:rain-->norain-",
    "replace:rain-->norain-,x2->", "replace:rd-->norain-", "replace:rain->clean", "replace:low->normal", "append:gt",
)  # fmt: skip


@dataclass
class Pairing:
    """Pairs, and what was left over.

    Attributes:
        pairs: (lq, gt) paths.
        missing: Degraded files without a clean one, each with the name that was looked for.
        unused: Clean files that nothing refers to.
        ambiguous: Degraded files with two clean ones of that name, which only their endings tell apart.
    """

    pairs: list[tuple[Path, Path]]
    missing: list[str] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)


def check_rule(rule: str, where: str) -> tuple[str, str]:
    """Return the rule's name and its argument.

    Raises:
        OptionError: An unknown rule, or one whose argument does not parse.
    """
    name, _, argument = rule.partition(":")
    forms = {known.partition(":")[0]: known for known in PAIR_RULES}
    if name not in forms:
        raise OptionError(f"{where}: {one_of(rule, PAIR_RULES, 'pairing rule')}")
    problem = bool(argument) != (":" in forms[name])
    if name == "prefix":
        problem = problem or not argument.isdigit() or int(argument) < 1
    if name in ("replace", "folder"):
        problem = problem or any(not _split(part)[0] for part in argument.split(","))
    if problem:
        raise OptionError(f"{where}: expected {forms[name]!r} ({PAIR_RULES[forms[name]]}), got {rule!r}.")
    return name, argument


def _split(text: str) -> tuple[str, str]:
    # 'rain-->norain-' is 'rain-' to 'norain-': the arrow is the first '->' that no '>' follows
    match = re.match(r"^(.+?)->(?!>)(.*)$", text)
    return (match.group(1), match.group(2)) if match else ("", "")


def pair_by_name(lq_root: Path, gt_root: Path, rule: str, where: str, recursive: bool = False) -> Pairing:
    """Pair the images of two folders by a rule on their names.

    Raises:
        DataError: A folder is missing or has no image.
        OptionError: A wrong rule.
    """
    name, argument = check_rule(rule, f"{where}.pair")
    recursive = recursive or name == "folder"
    lq_files = image_files(lq_root, f"{where}.dataroot_lq", recursive)
    gt_files = lq_files if lq_root == gt_root else image_files(gt_root, f"{where}.dataroot_gt", recursive)
    if name == "order":
        return _in_order(lq_files, gt_files, lq_root, gt_root, where)
    result = pair_up(lq_files, gt_files, lq_root, gt_root, name, argument)
    if result.ambiguous:
        raise DataError(
            f"{where}.pair: {len(result.ambiguous)} degraded image(s) have two clean ones by the rule {rule!r}: "
            f"{first_few(result.ambiguous)}. Take one of the two away."
        )
    return result


def _in_order(lq_files: Sequence[Path], gt_files: Sequence[Path], lq_root: Path, gt_root: Path, where: str) -> Pairing:
    """Pair the n-th file of each folder with the n-th of the clean folder of that name; numbers sort as numbers.

    Raises:
        OptionError: Both halves are in one tree.
        DataError: A folder has not as many files as its clean one: every pair after a gap would be wrong.
    """
    if lq_root == gt_root:
        raise OptionError(f"{where}.dataroot_gt: the rule 'order' needs a folder of the clean images alone.")
    result = Pairing([])
    lq_folders, gt_folders = _by_folder(lq_files, lq_root), _by_folder(gt_files, gt_root)
    for folder in sorted({*lq_folders, *gt_folders}):
        lq, gt = lq_folders.get(folder, []), gt_folders.get(folder, [])
        if len(lq) != len(gt):
            raise DataError(
                f"{where}.pair: the rule 'order' needs as many degraded as clean images, {lq_root / folder} has "
                f"{len(lq)} and {gt_root / folder} has {len(gt)}."
            )
        result.pairs.extend(zip(lq, gt))
    return result


def _by_folder(files: Sequence[Path], root: Path) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for path in sorted(files, key=_numbers_as_numbers):
        folders.setdefault(path.parent.relative_to(root), []).append(path)
    return folders


def _numbers_as_numbers(path: Path) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in _NUMBERS.findall(path.name)]


def fitting_rule(lq_root: Path, gt_root: Path, where: str, recursive: bool = False) -> str | None:
    """Return the first rule of the public data sets by which every degraded image has its clean one, for a message."""
    for rule in PUBLISHED_RULES:
        with contextlib.suppress(DataError):  # two clean images by this rule
            pairing = pair_by_name(lq_root, gt_root, rule, where, recursive)
            if pairing.pairs and not pairing.missing:
                return rule
    return None


def pair_up(
    lq_files: Sequence[Path], gt_files: Sequence[Path], lq_root: Path, gt_root: Path, name: str, argument: str
) -> Pairing:
    """Pair two lists of files by a rule; the pure part of ``pair_by_name``."""
    by_name = {path.relative_to(gt_root).as_posix(): path for path in gt_files}
    by_stem: dict[str, Path] = {}
    twins: dict[str, Path] = {}
    for path in gt_files:
        stem = path.relative_to(gt_root).with_suffix("").as_posix()
        if by_stem.setdefault(stem, path) != path:
            twins[stem] = path
    if lq_root == gt_root:
        lq_files = [path for path in lq_files if not _is_target(path.relative_to(lq_root), name, argument)]
    result = Pairing([])
    used: set[Path] = set()
    sources = set(lq_files) if lq_root == gt_root else set()
    for path in lq_files:
        wanted = _target(path.relative_to(lq_root), name, argument)
        target = by_name.get(wanted) if name == "same" else by_stem.get(wanted)
        if target is None and name == "prefix":  # many to one: OTS has part1 ... part4 beside one flat clean folder
            target = by_stem.get(Path(wanted).name)
        if target is None or target == path:
            result.missing.append(f"{path} (looked for {wanted} in {gt_root})")
        else:
            twin = None if name == "same" else twins.get(target.relative_to(gt_root).with_suffix("").as_posix())
            if twin is not None and twin != path and twin not in sources:
                result.ambiguous.append(f"{path} ({target} or {twin})")
            result.pairs.append((path, target))
            used.add(target)
    degraded = set(lq_files)
    clean = gt_files
    if name == "folder":  # a tree may hold more than the two halves (GoPro's blur_gamma)
        clean = [path for path in gt_files if _split(argument)[1] in path.relative_to(gt_root).parent.parts]
    result.unused = [path for path in clean if path not in used and path not in degraded]
    return result


def _target(path: Path, name: str, argument: str) -> str:
    """Return what the clean file must be called: a relative path, without its ending unless the rule is ``same``."""
    if name == "same":
        return path.as_posix()
    if name == "prefix":
        stem = "_".join(path.stem.split("_")[: int(argument)])
        return path.with_name(stem).as_posix()
    if name == "replace":
        stem = path.stem
        for part in argument.split(","):
            stem = stem.replace(*_split(part))
        return path.with_name(stem).as_posix() if stem else ""
    if name == "append":
        return path.with_name(path.stem + argument).as_posix()
    if name == "folder":
        old, new = _split(argument)
        parts = [new if part == old else part for part in path.parent.parts]
        return Path(*parts, path.stem).as_posix()
    return path.with_suffix("").as_posix()


def _is_target(path: Path, name: str, argument: str) -> bool:
    """Whether a file of a folder that holds both halves is a clean one."""
    if name == "append":
        return path.stem.endswith(argument)
    if name == "replace":
        return any(new and new in path.stem for _, new in map(_split, argument.split(",")))
    if name == "folder":
        return _split(argument)[0] not in path.parent.parts
    return False


def pair_from_list(kind: str, file: Path, lq_root: Path, gt_root: Path, order: str, where: str) -> Pairing:
    """Pair as a text file (``txtlist``) or a JSON file says.

    Args:
        kind: ``txtlist`` or ``json``.
        file: The list.
        lq_root: What the degraded paths are relative to.
        gt_root: What the clean paths are relative to.
        order: Of the two columns of a text file, ``gt_lq`` or ``lq_gt``.
        where: YAML path.

    Raises:
        DataError: The list is missing or not of that kind.
    """
    roots = (gt_root, lq_root) if order == "gt_lq" else (lq_root, gt_root)
    names = _json_names(file, where) if kind == "json" else _text_names(file, roots, order, where)
    if not names:
        raise DataError(f"{where}.pair_list: {file} lists no pair.")
    result = Pairing([])
    for lq_name, gt_name in names:
        lq, gt = find_listed(lq_root, lq_name), find_listed(gt_root, gt_name)
        if lq is not None and gt is not None:
            result.pairs.append((lq, gt))
            continue
        wanted = ((lq, lq_root, lq_name), (gt, gt_root, gt_name))
        result.missing.append(first_few(root / name.lstrip("/") for path, root, name in wanted if path is None))
    return result


def _text_names(file: Path, roots: tuple[Path, Path], order: str, where: str) -> list[tuple[str, str]]:
    names = []
    for number, line in list_lines(file, f"{where}.pair_list"):
        pair = split_pair(line, *roots)
        if pair is None:
            raise DataError(f"{where}.pair_list: line {number} of {file} has one column, two were expected: {line!r}.")
        names.append((pair[1], pair[0]) if order == "gt_lq" else pair)
    return names


def _json_names(file: Path, where: str) -> list[tuple[str, str]]:
    try:
        entries: Any = json.loads(list_text(file, f"{where}.pair_list"))
        return [(str(entry["image_path"]), str(entry["target_path"])) for entry in entries]
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{where}.pair_list: {file} is not a JSON list of {{image_path, target_path}} "
            f"({type(error).__name__}: {error})."
        ) from error
