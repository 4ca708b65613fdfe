"""``basicsr-plugins data``: its sub-commands, and ``check``, which walks the data sets of an option file."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr_plugins import register
from basicsr_plugins.cli import data_crop, data_dedup, data_lmdb
from basicsr_plugins.core.errors import DependencyError
from basicsr_plugins.core.safe_yaml import load_yaml

__all__ = ["add_parser", "run_check"]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to ``basicsr-plugins``."""
    parser = subparsers.add_parser("data", help="check, crop, pack and deduplicate data sets")
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="count pairs, find unpaired, mismatched and unreadable files",
        description="Walk every data set of an option file: count the pairs against the published number, and name "
        "unpaired, mismatched and unreadable files. Ends with code 1 if anything is wrong.",
    )
    check.add_argument("-opt", required=True, type=Path, metavar="X.yml", help="option file, or a fragment of one")
    check.add_argument("--quick", action="store_true", help="headers and tails only, decode nothing")
    check.add_argument("--show", type=int, default=5, metavar="N", help="name the first N of each kind (default 5)")
    check.add_argument(
        "--strict",
        action="store_true",
        help="any number other than the published one is wrong (less than half of it always is)",
    )
    check.set_defaults(func=run_check)
    for module in (data_crop, data_lmdb, data_dedup):
        module.add_command(commands)
    return parser


def run_check(args: argparse.Namespace) -> int:
    """Run ``data check``; the exit code is 1 where something is wrong.

    Raises:
        OptionError: The option file cannot be read.
    """
    from tqdm import tqdm

    from basicsr_plugins.data.survey import inspect
    from basicsr_plugins.data.survey_options import survey_datasets

    with contextlib.suppress(DependencyError):
        register()  # so that BasicSR's own data sets are known too, where it is installed
    wrong = False
    for survey in survey_datasets(load_options(args.opt)):
        if survey.error:
            print(f"{survey.error}\n")
            wrong = True
            continue
        total = len(survey.samples)
        count = f"{survey.where}: {total} {'pairs' if total and len(survey.samples[0]) > 1 else 'images'}"
        if survey.expected is not None:
            agrees = total == survey.expected
            count += f", as published ({survey.expected})" if agrees else f", published are {survey.expected}"
            wrong |= (args.strict and not agrees) or 2 * total < survey.expected
        print(count)

        def progress(items: Any, number: int, where: str = survey.where) -> Any:
            return tqdm(items, total=number, desc=where, unit="sample", disable=None, leave=False)

        problems = inspect(survey, full=not args.quick, progress=progress)
        for title, items in (
            ("without a clean image", survey.missing),
            ("unreadable or mismatched", problems),
            ("clean images that nothing refers to", survey.unused),
        ):
            _show(title, items, args.show)
        wrong |= bool(survey.missing or problems)
        print("  nothing wrong\n" if not (survey.missing or problems or survey.unused) else "")
    return int(wrong)


def _show(title: str, items: list[str], count: int) -> None:
    if not items:
        return
    print(f"  {len(items)} {title}:")
    for item in items[:count]:
        print(f"    {item}")
    if len(items) > count:
        print(f"    ... and {len(items) - count} more")


def load_options(path: Path) -> Mapping[str, Any]:
    """Return an option file, or a fragment with the options of one data set, as ``{datasets: ...}``.

    Raises:
        OptionError: It is missing or no YAML mapping.
    """
    content = load_yaml(path)
    if "datasets" in content:
        return content
    if "type" in content:
        return {"datasets": {str(content.get("phase", "train")): content}}
    return {"datasets": content}
