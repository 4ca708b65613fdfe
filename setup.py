"""Packaging. Metadata is static; the two commands below put the three start-up files at the root of the wheel."""

import os
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

HERE = os.path.dirname(os.path.abspath(__file__))
STARTUP = os.path.join("basicsr_plugins", "_startup")
STARTUP_FILES = ("basicsr_plugins.pth", "basicsr_plugins.start", "_basicsr_plugins_bootstrap.py")


def read(*parts):
    with open(os.path.join(HERE, *parts), encoding="utf-8") as file:
        return file.read()


def version():
    return re.search(r'^__version__ = "([^"]+)"', read("basicsr_plugins", "__init__.py"), re.MULTILINE).group(1)


def copy_startup_files(folder):
    return [shutil.copy(os.path.join(HERE, STARTUP, name), os.path.join(folder, name)) for name in STARTUP_FILES]


def option_files():
    """Return every file under options/, as paths relative to it."""
    root = os.path.join(HERE, "options")
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            if name.endswith((".yml", ".yaml", ".md")):
                yield os.path.relpath(os.path.join(folder, name), root)


class BuildPy(build_py):
    """A regular wheel: start-up files at its root, option files inside the package."""

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        copy_startup_files(self.build_lib)
        for name in option_files():
            target = os.path.join(self.build_lib, "basicsr_plugins", "option_files", name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(os.path.join(HERE, "options", name), target)

    def get_outputs(self, include_bytecode=1):
        outputs = super().get_outputs(include_bytecode)
        if not getattr(self, "editable_mode", False):
            outputs += [os.path.join(self.build_lib, name) for name in STARTUP_FILES]
            outputs += [os.path.join(self.build_lib, "basicsr_plugins", "option_files", n) for n in option_files()]
        return outputs


class EditableWheel(editable_wheel):
    """An editable wheel: the same three files, as real files, so that a clone that moved away harms nobody."""

    def _install_namespaces(self, installation_dir, *args, **kwargs):
        # private but stable since setuptools 64: the one place where the unpacked editable wheel can be added to
        super()._install_namespaces(installation_dir, *args, **kwargs)
        copy_startup_files(installation_dir)


setup(
    name="basicsr-plugins",
    version=version(),
    description="DCPT, SPN, ABAIR and deraining-generalization recipes for stock, un-forked BasicSR",
    long_description=read("README.md") if os.path.exists(os.path.join(HERE, "README.md")) else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["basicsr_plugins", "basicsr_plugins.*"]) + ["basicsr_plugins._startup"],
    package_data={
        "basicsr_plugins": ["py.typed", "builtin_model/*", "builtin_model/adapters/*/*"],
        "basicsr_plugins._startup": ["*.pth", "*.start"],
    },
    install_requires=[
        # lower bounds: what the unit tests were run with on Python 3.9; no upper ones
        "torch>=2.0",
        "torchvision>=0.15",
        "mmengine>=0.10.3",
        "numpy>=1.23",
        "opencv-python>=4.7",
        "einops>=0.6",
        "filelock>=3.9",
        "peft>=0.10",
        "pyyaml>=6.0",
        "tqdm>=4.60",
        "pillow>=9.0",
    ],
    extras_require={
        # Not a hard dependency: pip would put the registry's copy beside a user's own checkout.
        "basicsr": ["basicsr>=1.4.2"],
        "demo": ["scikit-image>=0.20", "scikit-learn>=1.2", "matplotlib>=3.6"],
        "dedup": ["imagehash>=4.3"],
        "hub": ["huggingface_hub>=0.20"],
        "lmdb": ["lmdb>=1.0"],
        "onnx": ["onnx>=1.14", "onnxruntime>=1.15"],
        "plots": ["scikit-learn>=1.2", "matplotlib>=3.6"],
        "pyiqa": ["pyiqa>=0.1.10"],
        "test": [
            "basicsr>=1.4.2",
            "huggingface_hub>=0.20",
            "hypothesis>=6.90",
            "imagehash>=4.3",
            "import-linter>=2.0",
            "lmdb>=1.0",
            "matplotlib>=3.6",
            "mypy>=1.10",
            "onnx>=1.14",
            "onnxruntime>=1.15",
            "pytest>=7.4",
            "pytest-xdist>=3.3",
            "ruff>=0.14",
            "scikit-image>=0.20",
            "scikit-learn>=1.2",
            "setuptools>=64",
            "spandrel>=0.4",
            "types-PyYAML",
            "types-tqdm",
            "wheel",
        ],
    },
    entry_points={"console_scripts": ["basicsr-plugins = basicsr_plugins.cli.main:main"]},
    cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    zip_safe=False,
)
