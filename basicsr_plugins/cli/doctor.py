"""`basicsr-plugins doctor`: what is installed, what does not fit, and whether an option file is right."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

import basicsr_plugins
from basicsr_plugins.core.errors import DependencyError, OptionError, PluginError

__all__ = ["add_parser", "check_option_file"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    text = "print versions and known incompatibilities, or check an option file without training"
    parser = commands.add_parser("doctor", help=text, description=text)
    parser.add_argument("-opt", "--opt", help="check this option file; nothing is written, the exit code says it all")
    parser.add_argument("--test", action="store_true", help="the option file is one for a test")
    parser.add_argument(
        "--set", action="append", nargs="+", default=[], metavar="KEY=VALUE", help="overrides, as train takes them"
    )
    parser.add_argument("--safe", action="store_true", help="refuse `imports` and types like package.module:Class")
    parser.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.opt:
        overrides = [text for group in arguments.set for text in group]
        for note in check_option_file(
            arguments.opt, is_train=not arguments.test, overrides=overrides, safe=arguments.safe
        ):
            print(note)
        return 0
    return _report()


def check_option_file(path: str, is_train: bool = True, overrides: Any = (), safe: bool = False) -> list[str]:
    """Check an option file as ``train`` or ``test`` would, and return what is to be said about it.

    Raises:
        PluginError: The first thing that is wrong.
    """
    basicsr_plugins.register()
    from basicsr_plugins.core.plugins import without_code
    from basicsr_plugins.core.safe_yaml import apply_overrides, load_yaml
    from basicsr_plugins.launch import checking
    from basicsr_plugins.launch import run as launcher

    given = load_yaml(path)
    apply_overrides(given, overrides)
    # the machine that checks need not be the one that trains
    here = argparse.Namespace(
        opt=path, set=[*overrides, "num_gpu=0"], launcher="none", auto_resume=False, debug=False, safe=safe
    )
    opt = launcher.complete_options(here, os.getcwd(), is_train)
    if not isinstance(given.get("num_gpu", "auto"), int) and given.get("num_gpu", "auto") != "auto":
        raise OptionError(f"num_gpu: expected auto or a number of GPUs, got {given['num_gpu']!r}.")
    with without_code("--safe" if safe else ""):
        checking.check_run(opt, here=False)
    resume = opt["path"].get("resume_state")
    if is_train and resume and not os.path.isfile(resume):
        raise OptionError(f"path.resume_state: there is no file {resume!r}.")
    notes = [f"{path}: nothing wrong for a {'training' if is_train else 'test'}."]
    if not checking.uses_ours(opt):
        notes.append("It uses nothing of basicsr_plugins, so that only BasicSR itself checks it, when it runs.")
    return notes


def _report() -> int:
    from basicsr_plugins.stock import installation

    route = installation.start_up_route()  # before BasicSR is imported below
    found = installation.versions()
    print(f"basicsr_plugins  {basicsr_plugins.__version__}  {os.path.dirname(basicsr_plugins.__file__)}")
    print(f"python           {platform.python_version()}  {platform.platform()}")
    copies = installation.basicsr_copies()
    for name, version in found.items():
        where = f"  {copies[0]}" if name == "basicsr" and copies else ""
        shown = version or ("not a distribution" if where else "not installed")
        print(f"{name:16} {shown}{where}")
    print(f"devices          {_devices()}")
    print(f"start-up         {route}")
    notes = installation.incompatibilities(found)
    print("\nKnown incompatibilities:" if notes else "\nKnown incompatibilities: none.")
    for note in notes:
        print(f"  - {note}")
    return _registered()


def _devices() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    backends = [
        name for name in ("nccl", "gloo") if torch.distributed.is_available() and _has_backend(torch.distributed, name)
    ]
    return f"{', '.join(names) or 'CPU only'}; distributed: {', '.join(backends) or 'none'}"


def _has_backend(distributed: Any, name: str) -> bool:
    return bool(getattr(distributed, f"is_{name}_available", lambda: name == "gloo")())


def _registered() -> int:
    from basicsr_plugins.core import plugins, registration

    try:
        basicsr_plugins.register()
    except DependencyError as error:
        print(f"\nRegistered: nothing. {error}")
        return 1
    except PluginError as error:
        print(f"\nRegistered: not everything. {error}")
        return 1
    print("\nRegistered:")
    for kind in registration.KINDS:
        print(f"  {kind:12} {', '.join(sorted(registration.provided(kind))) or 'nothing'}")
    renamed = {ours: theirs for kind in registration.KINDS for ours, theirs in registration.renamed(kind).items()}
    for problem in plugins.problems:
        print(f"  {problem}")
    for ours, registered in renamed.items():
        print(f"  {ours} was there already and stays; ours is {registered}.")
    return 0
