"""The base of our networks: it remembers the constructor's arguments, so that a network can be saved and shared.

``huggingface_hub`` has a mixin with the same three methods. It is not used: it would make that package a condition of
every network, and its import is not free. The files are alike: ``config.json``, ``model.safetensors``, ``README.md``.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from pathlib import Path
from typing import Any, ClassVar, Optional, TypeVar, Union

from torch import nn

from basicsr_plugins.core.errors import OptionError

__all__ = ["HubNetwork"]

Network = TypeVar("Network", bound="HubNetwork")
_ARGUMENTS = "_constructor_arguments"


class HubNetwork(nn.Module):
    """An ``nn.Module`` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Example:
        >>> import tempfile, torch
        >>> from basicsr_plugins.archs.nafnet_arch import NAFNet
        >>> network = NAFNet(preset="tiny")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network.save_pretrained(f"{folder}/mine")
        ...     again = NAFNet.from_pretrained(f"{folder}/mine")
        >>> torch.equal(again.intro.weight, network.intro.weight)
        True
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            changed: Any = cls  # a constructor is exchanged here, which no type can follow
            changed.__init__ = _remembering(changed.__init__)

    #: Whether it maps images to images, so that ``basicsr-plugins restore`` can run it.
    restores_images: ClassVar[bool] = True

    def constructor_arguments(self) -> dict[str, Any]:
        """Return every argument that builds this network again, presets and defaults written out.

        Raises:
            OptionError: It was built by a version that did not remember them (a whole network in a pickle).
        """
        if _ARGUMENTS not in vars(self):
            raise OptionError(f"{type(self).__name__}: this object does not know its arguments; build it anew.")
        return copy.deepcopy(vars(self)[_ARGUMENTS])

    def network_opt(self) -> dict[str, Any]:
        """Return the ``network_g`` of an option file that builds this network again.

        Raises:
            OptionError: See ``constructor_arguments``.
        """
        return {"type": type(self).__name__, **self.constructor_arguments()}

    def save_pretrained(self, folder: Union[str, Path], *, licence: Optional[str] = None) -> None:
        """Write ``config.json``, ``model.safetensors`` and a model card into a folder.

        Args:
            folder: A new folder, or one that this method wrote: its weights are replaced, its model card is kept.
            licence: What the card says, by the Hub's names ("apache-2.0"); without one the card asks for it.

        Raises:
            OptionError: Files of others stand there, or an argument of the network is no plain value.
            CheckpointError: The folder cannot be written.
        """
        from basicsr_plugins.hub.pretrained import save_network

        save_network(self, folder, licence)

    @classmethod
    def from_pretrained(
        cls: type[Network],
        where: Union[str, Path],
        *,
        revision: Optional[str] = None,
        cache_dir: Union[str, Path, None] = None,
        token: Union[str, bool, None] = None,
        local_files_only: bool = False,
        **arguments: Any,
    ) -> Network:
        """Return the network of a folder or of a repository on the Hugging Face Hub, in eval mode.

        Args:
            where: A folder that ``save_pretrained`` wrote, or ``user/repository``.
            revision: Branch, tag or commit of the repository.
            cache_dir: Where huggingface_hub keeps what it fetched, if not in its usual folder.
            token: For a private repository; by default the one that ``hf auth login`` stored.
            local_files_only: Take what was fetched before, without a network.
            **arguments: Constructor arguments that replace those in ``config.json`` (``use_checkpoint=True``).

        Raises:
            OptionError: An argument is unknown, or there is nothing at this place.
            CheckpointError: The folder holds another network, or is broken.
            DependencyError: The Hub does not give the files, or huggingface_hub is missing.
        """
        from basicsr_plugins.hub.hugging_face import network_folder
        from basicsr_plugins.hub.pretrained import load_network

        folder = network_folder(
            where, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        return load_network(cls, folder, arguments)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: Optional[bool] = None,
        token: Optional[str] = None,
        branch: Optional[str] = None,
        message: str = "Upload the network",
        licence: Optional[str] = None,
    ) -> str:
        """Upload the network to the Hugging Face Hub and return the address of the commit.

        Args:
            repository: ``user/repository``; it is made where it does not exist. A model card that is there is kept.
            private: Make a new repository private; by default what the account says.
            token: One that may write; by default the one that ``hf auth login`` stored.
            branch: A branch that exists; by default the main one.
            message: Of the commit.
            licence: See ``save_pretrained``.

        Raises:
            OptionError: An argument of the network is no plain value.
            DependencyError: The Hub refuses, cannot be reached, or huggingface_hub is missing.
        """
        from basicsr_plugins.hub.hugging_face import upload_network

        return upload_network(self, repository, private, token, branch, message, licence)


def _remembering(init: Any) -> Any:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if _ARGUMENTS not in vars(self):  # the outermost constructor's: a parent is called with others
            with contextlib.suppress(TypeError):  # wrong arguments: the call below says so
                given = signature.bind(self, *args, **kwargs)
                given.apply_defaults()  # a later version may have others
                vars(self)[_ARGUMENTS] = {key: _own(value) for key, value in list(given.arguments.items())[1:]}
        init(self, *args, **kwargs)

    return __init__


def _own(value: Any) -> Any:
    """Return a list or mapping that nobody else changes."""
    return copy.deepcopy(value) if isinstance(value, (list, tuple, dict)) else value
