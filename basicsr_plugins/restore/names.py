"""What ``--model`` may be beside a path: the name of a published model, ``builtin``, or an address of the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Union

from torch import nn

from basicsr_plugins.core.errors import OptionError, one_of
from basicsr_plugins.restore.packaged import BUILTIN, packaged_model

__all__ = ["find_named"]

# pathlib makes one slash of two
_HUB = re.compile(r"hf:/{0,2}(?=[^/])")
_NAME = re.compile(r"[A-Za-z][\w-]*")


def find_named(where: Union[str, Path], near: str = "") -> Union[Path, tuple[nn.Module, str, Path]]:
    """Return where the model is that a name means, or the network of a published one, what to call it, and its file.

    Args:
        where: What was given; there is no such path.
        near: What lies near that path, for the message.

    Raises:
        OptionError: There is no such name either, or the model cannot be run here.
        DependencyError: It cannot be fetched.
        CheckpointError: The file is broken or another one.
    """
    from tqdm import tqdm

    from basicsr_plugins.hub.hugging_face import hub_path
    from basicsr_plugins.hub.load import load_published
    from basicsr_plugins.hub.published import MODELS

    text = Path(where).as_posix()
    if _HUB.match(text):
        return hub_path(_HUB.sub("hf://", text))
    if text == BUILTIN:
        return packaged_model()
    if text in MODELS:
        network, path = load_published(MODELS[text], tqdm)
        return network, f"{text} ({path})", path
    nowhere = f"--model: there is neither a file nor a folder {where}"
    if not _NAME.fullmatch(text):
        raise OptionError(f"{nowhere}.{near}")
    raise OptionError(f"{nowhere}.{near} As a name: {one_of(text, [BUILTIN, *MODELS], 'model')}")
