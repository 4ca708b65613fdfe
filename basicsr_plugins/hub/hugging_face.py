"""The Hugging Face Hub: folders and files from it, networks to it. ``huggingface_hub`` is loaded when it is used."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, NoReturn, Optional, Union

from basicsr_plugins import __version__
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.checkpoints import CONFIG_FILE, WEIGHTS_FILE
from basicsr_plugins.core.errors import DependencyError, OptionError
from basicsr_plugins.hub.pretrained import CARD_FILE, save_network

__all__ = ["hub_path", "network_folder", "upload_network"]

_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def network_folder(where: Union[str, Path], **options: Any) -> Path:
    """Return a folder that is there, or the fetched copy of a repository.

    Args:
        where: The folder, or ``user/repository``.
        **options: ``revision``, ``cache_dir``, ``token``, ``local_files_only`` of huggingface_hub.

    Raises:
        OptionError: It is neither.
        DependencyError: The Hub does not give it, or huggingface_hub is missing.
    """
    folder = Path(where).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(where, Path) or not _REPOSITORY.fullmatch(where):
        raise OptionError(f"from_pretrained: there is no folder {where}, and a repository is written user/repository.")
    hub = _huggingface_hub()
    try:
        # one call: both files are of the same commit
        return Path(hub.snapshot_download(where, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE], **_signed(options)))
    except Exception as error:  # types of its own and of its HTTP client, which change from version to version
        _refused(f"{where} cannot be fetched from the Hugging Face Hub", error)


def hub_path(address: str) -> Path:
    """Return the fetched copy of what ``hf://user/repository`` or ``hf://user/repository/file.pth`` names.

    Raises:
        OptionError: The address is written otherwise.
        DependencyError: The Hub does not give it, or huggingface_hub is missing.
    """
    parts = [part for part in address.split(":", maxsplit=1)[-1].split("/") if part]
    if len(parts) < 2:
        raise OptionError(f"{address}: expected hf://user/repository, or hf://user/repository/file.pth.")
    repository = "/".join(parts[:2])
    if len(parts) == 2:
        return network_folder(repository)
    hub = _huggingface_hub()
    try:
        return Path(hub.hf_hub_download(repository, "/".join(parts[2:]), **_signed({})))
    except Exception as error:  # see above
        _refused(f"{address} cannot be fetched from the Hugging Face Hub", error)


def upload_network(
    network: HubNetwork,
    repository: str,
    private: Optional[bool],
    token: Optional[str],
    branch: Optional[str],
    message: str,
    licence: Optional[str],
) -> str:
    """Upload a network and return the commit's address; see ``HubNetwork.push_to_hub``.

    Raises:
        OptionError: The network cannot be saved, or the name is no ``user/repository``.
        DependencyError: The Hub refuses, cannot be reached, or huggingface_hub is missing.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise OptionError(f"push_to_hub: a repository is written user/repository, got {repository!r}.")
    hub = _huggingface_hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repository.rpartition("/")[2]
        save_network(network, folder, licence)
        try:
            api = hub.HfApi(library_name="basicsr_plugins", library_version=__version__, token=token)
            api.create_repo(repository, private=private, exist_ok=True)
            if api.file_exists(repository, CARD_FILE, revision=branch):  # somebody wrote it
                (folder / CARD_FILE).unlink()
            commit = api.upload_folder(
                repo_id=repository, folder_path=str(folder), commit_message=message, revision=branch
            )
        except Exception as error:  # see above
            _refused(f"{repository} cannot be written to the Hugging Face Hub", error)
    return str(getattr(commit, "commit_url", commit))


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DependencyError(
            "The Hugging Face Hub needs the package huggingface_hub: pip install basicsr-plugins[hub]"
        ) from error
    return huggingface_hub


def _signed(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "library_name": "basicsr_plugins", "library_version": __version__}


def _refused(what: str, error: Exception) -> NoReturn:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rstrip(".:") if lines else ""
    raise DependencyError(f"{what}: {type(error).__name__}{': ' if reason else ''}{reason}.") from error
