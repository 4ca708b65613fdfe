"""Adapters on a frozen network through PEFT: attach, save in PEFT's format, load, merge."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

import torch
from torch import nn

from basicsr_plugins import __version__
from basicsr_plugins.adapters.fingerprint import fingerprint
from basicsr_plugins.adapters.folder import AdapterFolder, read_folder, write_folder
from basicsr_plugins.adapters.peft_options import import_peft, parse_peft_options, quiet, takes_convolutions
from basicsr_plugins.adapters.pointwise import convolutions_to_linear, is_pointwise, linear_to_convolutions
from basicsr_plugins.adapters.targets import is_plain, select_targets
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError

__all__ = ["AttachedAdapter", "attach_adapter", "check_peft_options", "load_adapter"]


def attach_adapter(
    net: nn.Module, peft_opt: Mapping[str, Any] | None = None, *, network: str = "", path: str = ""
) -> AttachedAdapter:
    """Freeze ``net`` and put one fresh adapter on it, in place.

    Args:
        net: Any network; afterwards only the adapter's parameters have ``requires_grad``.
        peft_opt: ``type`` (a PEFT method, default ``lora``), ``target`` (see ``select_targets``) and any field of
            that method's PEFT config. For LoRA ``r`` is 4 and ``lora_alpha`` equals ``r``, so that the scale is 1.
        network: What the network is called, for the record.
        path: Where its weights came from, for the record.

    Raises:
        DependencyError: PEFT is not installed, or would train biases without saving them.
        OptionError: An unknown method or field, a value PEFT refuses, or layers that cannot be adapted.

    Example::

        adapter = attach_adapter(net, {"r": 8, "target": "attention"})
        adapter.save("adapters/rain", name="rain")
    """
    if any(".base_layer." in name for name in net.state_dict()):
        raise OptionError("This network already carries an adapter; start from the base network.")
    peft = import_peft()
    base = {"fingerprint": fingerprint(net), "network": network or type(net).__name__, "path": str(path or "")}
    method, config_type, target, given = parse_peft_options(peft_opt or {})
    names = select_targets(net, target)
    _check_that_biases_blend(net, given)
    as_linear = any(isinstance(net.get_submodule(name), nn.Conv2d) for name in names) and not takes_convolutions(
        config_type, given
    )
    if as_linear:
        large = [name for name in names if not is_pointwise(net.get_submodule(name))]
        if large:
            raise OptionError(f"peft_opt.target: {method} adapts linear layers and 1x1 convolutions, not {large[0]}.")
    else:
        unusual = [name for name in names if not is_plain(net.get_submodule(name))]
        if unusual and method != "lora":
            raise OptionError(
                f"peft_opt.target: {unusual[0]} is dilated or not zero-padded, which PEFT's {method} would not repeat."
            )
    injected = convolutions_to_linear(net, names) if as_linear else names
    try:
        with quiet():
            config = config_type(**given, target_modules=_exactly(injected, net))
            wrapped = peft.get_peft_model(net, config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError) as error:
        raise OptionError(f"peft_opt: PEFT refuses these {method} options: {error}") from error
    _check_that_biases_are_saved(peft, wrapped)
    adapter = AttachedAdapter(net, wrapped, base, as_linear)
    adapter.copy_geometry()
    return adapter


def _check_that_biases_blend(net: nn.Module, given: Mapping[str, Any]) -> None:
    """Refuse ``bias: all`` where it trains what no blend can take, now and not after the training."""
    if given.get("bias") != "all":
        return
    layers = dict(net.named_modules())
    for key, _ in net.named_parameters():
        name, _, kind = key.rpartition(".")
        if "bias" in key and not (kind == "bias" and isinstance(layers[name], (nn.Linear, nn.Conv2d))):
            raise OptionError(
                f"peft_opt.bias: all would also train {key} ({type(layers[name]).__name__}), and only biases of linear "
                "and convolution layers can be blended. Use bias: lora_only, or none."
            )


def _check_that_biases_are_saved(peft: Any, wrapped: nn.Module) -> None:
    """Refuse ``bias: lora_only`` where PEFT trains biases that it leaves out of the saved file (0.17 does)."""
    trained = [n for n, p in wrapped.named_parameters() if p.requires_grad and n.endswith(".base_layer.bias")]
    if not trained:  # the usual adapter: nothing to ask PEFT for
        return
    with quiet():
        saved = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    if any(name not in saved for name in trained):
        raise DependencyError(
            f"peft_opt.bias: PEFT {peft.__version__} trains these biases and does not save them. Use none or all, or a "
            "newer PEFT."
        )


def check_peft_options(net: nn.Module, peft_opt: Mapping[str, Any]) -> None:
    """Check ``peft_opt`` for a network without touching it.

    Raises:
        OptionError: What ``attach_adapter`` would raise for the method, its fields and the layers.
    """
    _, _, target, given = parse_peft_options(peft_opt)
    select_targets(net, target)
    _check_that_biases_blend(net, given)


def load_adapter(
    net: nn.Module, folder: Union[str, os.PathLike, AdapterFolder], *, trainable: bool = False, where: str = ""
) -> AttachedAdapter:
    """Put a saved adapter on ``net`` in place, after checking that it was trained on these very weights.

    Raises:
        CheckpointError: It was trained on another base, or its layers or shapes do not fit.
        DependencyError: PEFT is not installed.
    """
    folder = folder if isinstance(folder, AdapterFolder) else read_folder(folder)
    peft = import_peft()
    folder.check_weights()  # PEFT reads them itself, and would go on to a pickle or to the network
    found = fingerprint(net)
    folder.check_base(found, where or type(net).__name__)
    as_linear = bool(folder.provenance.get("pointwise_as_linear"))
    if as_linear:
        layers = {name for name, layer in net.named_modules() if is_pointwise(layer)}
        stored = {key.rsplit(".linear.", 1)[0] for key in folder.tensors() if ".linear." in key}
        convolutions_to_linear(net, sorted(layers & stored))
    try:
        with quiet():
            wrapped = peft.PeftModel.from_pretrained(net, str(folder.path), is_trainable=trainable)
    except (ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{folder.path}: PEFT cannot put this adapter on {type(net).__name__}: {error}"
        ) from error
    base = folder.provenance.get("base") or {"fingerprint": found, "network": type(net).__name__, "path": ""}
    adapter = AttachedAdapter(net, wrapped, dict(base), as_linear)
    adapter.copy_geometry()
    return adapter


class AttachedAdapter:
    """A network that carries one adapter, and PEFT's handle on it.

    Args:
        net: The network itself, adapted in place; call it as before.
        wrapped: The ``PeftModel`` around it.
        base: ``fingerprint``, ``network`` and ``path`` of the base, for the record.
        as_linear: Whether 1x1 convolutions were turned into linear layers for this method.
    """

    def __init__(self, net: nn.Module, wrapped: Any, base: dict[str, str], as_linear: bool) -> None:
        self.net, self.wrapped, self.base, self.as_linear = net, wrapped, base, as_linear

    def parameters(self) -> list[nn.Parameter]:
        """The adapter's own parameters, the only ones that train."""
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]

    def copy_geometry(self) -> None:
        """Give PEFT's low-rank convolutions the dilation and padding mode of their layer, which PEFT leaves out."""
        for module in self.net.modules():
            base = getattr(module, "base_layer", None)
            if not isinstance(base, nn.Conv2d) or is_plain(base):
                continue
            factors: Any = module.lora_A
            for low in factors.values():
                low.dilation, low.padding_mode = base.dilation, base.padding_mode
                low._reversed_padding_repeated_twice = base._reversed_padding_repeated_twice

    def save(
        self, path: Union[str, os.PathLike], name: str, *, weights: nn.Module | None = None, **record: Any
    ) -> None:
        """Write PEFT's folder in one step: ``adapter_config.json``, ``adapter_model.safetensors``, our provenance.

        Args:
            path: The folder; an older one is replaced.
            name: The adapter's name.
            weights: An averaged copy of the network whose values are saved instead.
            record: Whatever else should be remembered (degradation, iteration); plain JSON values.
        """
        provenance = {
            "name": name,
            "base": self.base,
            "pointwise_as_linear": self.as_linear,
            "version": __version__,
            **record,
        }

        state = None
        if weights is not None:
            prefix = "base_model.model."
            state = {**self.wrapped.state_dict(), **{f"{prefix}{k}": v for k, v in weights.state_dict().items()}}

        def write(folder: Path) -> None:
            with quiet():
                self.wrapped.save_pretrained(str(folder), state_dict=state)

        write_folder(path, write, provenance)

    def merge(self) -> nn.Module:
        """Fold the adapter into the weights, in place, and return the plain network with its own key names again."""
        try:
            with quiet(), torch.no_grad():
                net = self.wrapped.merge_and_unload(safe_merge=True)
        except (ValueError, NotImplementedError) as error:
            raise CheckpointError(f"PEFT cannot merge this adapter: {error}") from error
        linear_to_convolutions(net)
        return net


def _exactly(names: list[str], net: nn.Module) -> Union[list[str], str]:
    """PEFT takes a list of names as endings; where one ending fits another layer too, write an expression instead."""
    every = [name for name, _ in net.named_modules()]
    wanted = set(names)
    if any(other not in wanted and other.endswith(f".{name}") for name in names for other in every):
        return "|".join(re.escape(name) for name in names)
    return list(names)
