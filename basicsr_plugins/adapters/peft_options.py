"""``peft_opt``: which PEFT methods there are, which of them serve here, and their options."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from basicsr_plugins.core.errors import DependencyError, OptionError, one_of

__all__ = ["import_peft", "methods", "parse_peft_options", "quiet", "takes_convolutions"]

#: PEFT methods that a restoration network or a blend cannot use, tried with PEFT 0.21.
UNFIT = {
    "adaption_prompt": "it works on language models only",
    "beft": "PEFT cannot merge it, so it cannot be blended",
    "gralora": "it works on token sequences only",
    "lily": "PEFT cannot merge it, so it cannot be blended",
    "poly": "it wants the task with every forward pass",
    "shadow": "it works on language models only",
    "tinylora": "PEFT cannot put it on layers of different sizes",
    "trainable_tokens": "it works on embeddings only",
    "unilora": "PEFT does not restore it exactly from its folder",
}
#: What an empty ``peft_opt`` means. Rank 4 is the paper's best (table 6b); alpha and the layers are ours.
LORA = {"type": "lora", "target": "auto", "r": 4}


def methods() -> list[str]:
    """Return the PEFT methods that adapt layers of any network: ``lora``, ``vera``, ``loha`` and so on."""
    return sorted(kind.lower() for kind in _configs() if kind.lower() not in UNFIT)


def parse_peft_options(peft_opt: Mapping[str, Any]) -> tuple[str, Any, Any, dict[str, Any]]:
    """Return the method, its PEFT config class, the target layers and the fields of the config."""
    given = {**LORA, **peft_opt} if peft_opt.get("type", "lora") == "lora" else dict(peft_opt)
    method = str(given.pop("type"))
    target = given.pop("target", "auto")
    config_type = _configs().get(method.upper())
    if method in UNFIT:
        raise OptionError(
            f"peft_opt.type: {method} is of no use here: {UNFIT[method]}. Allowed: {', '.join(methods())}."
        )
    if config_type is None:
        raise OptionError(f"peft_opt.type: {one_of(method, methods(), 'PEFT method')}")
    if "target_modules" in given:
        raise OptionError("peft_opt.target_modules: the layers are chosen by 'target' (a preset, names or a pattern).")
    fields = {field.name for field in dataclasses.fields(config_type) if field.init}
    for key in given:
        if key not in fields:
            raise OptionError(f"peft_opt.{key}: {one_of(key, ['type', 'target', *sorted(fields)], 'option')}")
    if method == "lora":
        given.setdefault("lora_alpha", given["r"])
    return method, config_type, target, given


def import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise DependencyError(
            "Adapters need PEFT: pip install 'basicsr-plugins[peft]' (or pip install peft)."
        ) from error
    return peft


def _configs() -> dict[str, Any]:
    import_peft()
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    return {
        str(getattr(kind, "value", kind)): config
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if kind in PEFT_TYPE_TO_TUNER_MAPPING and "target_modules" in {f.name for f in dataclasses.fields(config)}
    }


def takes_convolutions(config_type: Any, given: Mapping[str, Any]) -> bool:
    """Try the method on one small convolution: PEFT has no list of what each method can adapt."""
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            probe = nn.Sequential(nn.Conv2d(64, 64, 1))
            import_peft().get_peft_model(probe, config_type(**given, target_modules=["0"]))
    except (ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide PEFT's warnings about what holds for language models only (no ``config``, no embedding)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
