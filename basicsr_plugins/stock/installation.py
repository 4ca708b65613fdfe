"""What is installed here, and which known traps that runs into. Nothing heavy is imported except torch, on request."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Optional

__all__ = ["PACKAGES", "basicsr_copies", "incompatibilities", "start_up_route", "version_of", "versions"]

#: distributions by the name under which they are shown; the first that is installed counts
PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "basicsr": ("basicsr",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "mmengine": ("mmengine", "mmengine-lite"),
    "peft": ("peft",),
    "safetensors": ("safetensors",),
    "scikit-image": ("scikit-image",),
    "scikit-learn": ("scikit-learn",),
    "matplotlib": ("matplotlib",),
}
#: what is missing without an optional package
_OPTIONAL = {
    "mmengine": "SPN's negative models (train.spn_opt)",
    "peft": "adapters (AdapterModel, AdapterBlendModel)",
    "safetensors": "reading and writing .safetensors",
    "scikit-image": "the demo photographs (demo-data)",
    "scikit-learn": "the demo photographs (demo-data), the kNN probe",
    "matplotlib": "the demo photographs (demo-data), every picture of a curve",
}


def version_of(name: str) -> Optional[str]:
    """Return the version of a package of ``PACKAGES``, None where it is not installed."""
    for distribution in PACKAGES[name]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def versions() -> dict[str, Optional[str]]:
    """Return the version of every package of ``PACKAGES``."""
    return {name: version_of(name) for name in PACKAGES}


def basicsr_copies() -> list[Path]:
    """Return every ``basicsr`` package that python could import, the one that it takes first.

    A folder without ``__init__.py``, as Restormer and NAFNet have it, is a package too, but python takes it only where
    no entry of its path has one with ``__init__.py``.
    """
    copies: list[Path] = []
    spec = importlib.util.find_spec("basicsr")
    if spec is not None and spec.origin:
        copies.append(Path(spec.origin).parent)
    elif spec is not None:
        copies += [Path(folder) for folder in spec.submodule_search_locations or ()]
    folders = [Path(entry or os.getcwd(), "basicsr") for entry in sys.path]
    for folder in [*filter(_is_regular, folders), *filter(_is_open, folders)]:
        if folder.resolve() not in [copy.resolve() for copy in copies]:
            copies.append(folder)
    return copies


def _is_regular(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def _is_open(folder: Path) -> bool:
    """Whether a folder is a package without ``__init__.py`` and not, say, a clone that holds one."""
    return folder.is_dir() and not _is_regular(folder) and any((folder / name).is_dir() for name in ("models", "utils"))


def start_up_route() -> str:
    """Say how this package gets into BasicSR. To be asked before anything has imported BasicSR."""
    if os.environ.get("BASICSR_PLUGINS_AUTOLOAD", "1").strip().lower() in ("0", "false", "off", "no"):
        return "switched off by BASICSR_PLUGINS_AUTOLOAD; `basicsr-plugins train|test` and register() still work"
    roles = [getattr(finder, "basicsr_plugins_role", None) for finder in sys.meta_path]
    if "SignalFinder" in roles:
        return "start-up hook: every program that imports basicsr knows our models, data sets, losses and networks"
    if "basicsr.models" in sys.modules:
        return "start-up hook or register(): BasicSR is loaded already"
    return (
        "none: this package is not installed, or python was started without site (-S, -I). "
        "`basicsr-plugins train|test` works; `python basicsr/train.py` needs pip install, or one "
        "basicsr_plugins.register() in the program"
    )


def incompatibilities(found: dict[str, Optional[str]], python: tuple[int, int] = sys.version_info[:2]) -> list[str]:
    """Return one sentence for each known trap that these versions run into.

    Args:
        found: ``versions()``.
        python: Major and minor version.
    """
    notes = []
    torch, vision = _numbers(found.get("torch")), _numbers(found.get("torchvision"))
    if not torch:
        notes.append("torch is not installed: nothing here works without it.")
    elif vision and vision != _matching_vision(torch):
        wanted = ".".join(map(str, _matching_vision(torch)))
        notes.append(
            f"torchvision {found['torchvision']} does not belong to torch {found['torch']}, which needs {wanted}.*: "
            "install both together."
        )
    if torch and torch < (2, 2):
        notes.append(f"torch {found['torch']}: train.compile needs 2.2 or newer.")
    if torch and torch < (2, 3):
        notes.append(f"torch {found['torch']}: train.precision fp16 on the CPU needs 2.3 or newer; bf16 works.")
    if vision and vision >= (0, 17) and found.get("basicsr"):
        notes.append(
            f"torchvision {found['torchvision']} no longer has transforms.functional_tensor, which BasicSR 1.4.2 "
            "imports: our stand-in answers for it, for BasicSR alone."
        )
    if python >= (3, 12) and importlib.util.find_spec("distutils") is None:
        notes.append(
            f"python {python[0]}.{python[1]} has no distutils, which BasicSR 1.4.2 imports, and no active setuptools "
            "with a copy: our stand-in answers for it, for BasicSR alone."
        )
    if python >= (3, 13) and not found.get("basicsr"):
        notes.append(
            f"python {python[0]}.{python[1]}: the setup.py of BasicSR 1.4.2 fails from 3.13 on (KeyError: "
            "'__version__'). Install it with tools/install_basicsr.py of our repository, or put its unpacked sdist, "
            "which has a basicsr/version.py, on PYTHONPATH."
        )
    notes += [f"{name} is not installed: no {what}." for name, what in _OPTIONAL.items() if not found.get(name)]
    installed = [name for name in PACKAGES["opencv"] if _is_installed(name)]
    if len(installed) > 1:
        notes.append(f"{' and '.join(installed)} are installed over each other: keep one.")
    if not found.get("opencv"):
        notes.append("opencv is not installed: no image can be read or written.")
    return notes + _basicsr_notes()


def _basicsr_notes() -> list[str]:
    copies = basicsr_copies()
    here = Path(os.getcwd(), "basicsr")
    notes = []
    if (_is_regular(here) or _is_open(here)) and here.resolve() not in [copy.resolve() for copy in copies]:
        hides = "hides" if _is_regular(here) else "does not hide (it has no __init__.py)"
        other = copies[0] if copies else "any other one"
        notes.append(f"{here} is called basicsr too: for `python -m ...` started in this folder it {hides} {other}.")
    if not copies:
        return [
            *notes,
            "basicsr is not installed: pip install --no-build-isolation basicsr, or put a checkout on PYTHONPATH.",
        ]
    taken = copies[0]
    if len(copies) > 1:
        others = ", ".join(str(copy) for copy in copies[1:])
        notes.append(f"several packages are called basicsr: {taken} is imported, it hides {others}.")
    if not (taken / "utils" / "registry.py").is_file():
        notes.append(
            f"{taken} is a fork without registries (as Restormer's and NAFNet's): it cannot be extended and is left "
            "as it is; stock BasicSR is needed, in an environment of its own or before it on PYTHONPATH."
        )
    elif not _is_regular(taken):
        notes.append(f"{taken} has no __init__.py: our start-up hook works, `import basicsr` alone loads nothing.")
    if _needs_version(taken):
        way = "write the file (__version__ = '1.4.2' and __gitsha__ = 'unknown')"
        if (taken.parent / "setup.py").is_file():
            way = f"run `python setup.py develop --no_cuda_ext` in {taken.parent} once, or {way}"
        notes.append(f"{taken} has no version.py, which it imports: {way}.")
    return notes


def _needs_version(package: Path) -> bool:
    """Whether a package imports its own ``version.py``, which setup.py writes, and has none."""
    init = package / "__init__.py"
    if (package / "version.py").is_file() or not init.is_file():
        return False
    return "version" in init.read_text(encoding="utf-8", errors="replace")


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _numbers(version: Optional[str]) -> tuple[int, ...]:
    parts = (version or "").split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts) if len(parts) == 2 and all(part.isdigit() for part in parts) else ()


def _matching_vision(torch: tuple[int, ...]) -> tuple[int, int]:
    return (0, torch[1] + 15) if torch[0] == 2 else (0, torch[1] + 1)
