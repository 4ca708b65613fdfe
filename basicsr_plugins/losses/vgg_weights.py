"""Where a VGG's pre-trained weights come from; never from a random generator unless that was asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import torch
from torch import Tensor

from basicsr_plugins.checkpoints import read_checkpoint
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError

__all__ = ["BASICSR_FOLDER", "PLANS", "vgg_state_dict"]

#: Convolutions per block; the width doubles from 64 up to 512.
PLANS: dict[str, tuple[int, ...]] = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
#: Where stock BasicSR looks first, from the folder that training was started in.
BASICSR_FOLDER = "experiments/pretrained_models"
SOURCES = ("auto", "torchvision", "random")


def vgg_state_dict(backbone: str, weights: str = "auto") -> Optional[dict[str, Tensor]]:
    """Return the state dict of a VGG's ``features`` with torchvision's keys (``0.weight``), or None for ``random``.

    Args:
        backbone: A key of ``PLANS``.
        weights: ``auto``: the file in BasicSR's folder if it is there, else torchvision's (its cache, else its
            download). ``torchvision``: only those. ``random``: None. Anything else: the path of a local file with
            torchvision's keys, with or without the leading ``features.``.

    Raises:
        OptionError: ``weights`` is neither a known word nor a file.
        DependencyError: Nothing was found and nothing could be downloaded.
        CheckpointError: The file is not of this backbone.
    """
    if not isinstance(weights, str) or not weights:
        raise OptionError(f"weights: expected {', '.join(SOURCES)} or the path of a file, got {weights!r}.")
    if weights == "random":
        return None
    if weights not in SOURCES:
        return _from_file(backbone, Path(weights).expanduser())
    url = _url(backbone)
    usual = Path(BASICSR_FOLDER) / url.rsplit("/", 1)[-1]
    if weights == "auto" and usual.is_file():
        return _from_file(backbone, usual)
    return _from_torchvision(backbone, url, usual)


def _url(backbone: str) -> str:
    from torchvision.models import get_model_weights

    return get_model_weights(backbone).IMAGENET1K_V1.url


def _from_torchvision(backbone: str, url: str, usual: Path) -> dict[str, Tensor]:
    try:
        state = torch.hub.load_state_dict_from_url(
            url, progress=False, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as problem:
        name = url.rsplit("/", 1)[-1]
        raise DependencyError(
            f"weights: the pre-trained weights of {backbone} are not in torchvision's cache and could not be "
            f"downloaded from {url} ({problem}). Put the file {name} into {usual.parent} or into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or name it with 'weights: path/to/{name}'. "
            "'weights: random' takes an untrained VGG, for tests only."
        ) from problem
    return _features_of(backbone, state, url)


def _from_file(backbone: str, path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise OptionError(
            f"weights: there is no file {str(path)!r}. Give the path of {backbone}'s weights "
            f"({_url(backbone).rsplit('/', 1)[-1]}), or one of: {', '.join(SOURCES)}."
        )
    return _features_of(backbone, read_checkpoint(path), str(path))


def _features_of(backbone: str, state: object, origin: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping):
        raise CheckpointError(f"weights: {origin} holds a {type(state).__name__}, not the state dict of {backbone}.")
    features = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    features = features or dict(state)
    index, width, channels = 0, 64, 3
    for count in PLANS[backbone]:
        for _ in range(count):
            shape = tuple(getattr(features.get(f"{index}.weight"), "shape", ()))
            if shape != (width, channels, 3, 3) or f"{index}.bias" not in features:
                raise CheckpointError(
                    f"weights: {origin} is not a {backbone}: features.{index}.weight should be "
                    f"{(width, channels, 3, 3)}, found {shape or 'nothing'}."
                )
            channels = width
            index += 2
        index += 1
        width = min(512, width * 2)
    return features
