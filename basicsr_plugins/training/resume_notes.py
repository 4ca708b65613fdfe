"""What a resumed run does otherwise than its option file says, or than the run before it did: one sentence each."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from basicsr_plugins.core.errors import CheckpointError

__all__ = ["check_optimizers", "present_setting", "resume_notes", "setting_in_force"]

#: What a scheduler counts while it runs; everything else in its state comes from its options.
_COUNTERS = frozenset(
    {"last_epoch", "base_lrs", "verbose", "T_cur", "T_i", "_step_count", "_last_lr", "_is_initial"}
    | {"_get_lr_called_within_step"}
)
#: What changes neither which samples are drawn nor their order.
_LOADING = frozenset({"num_worker_per_gpu", "pin_memory", "prefetch_mode", "num_prefetch_queue", "persistent_workers"})


def present_setting(
    names: Sequence[str], optimizers: Sequence[Any], schedulers: Sequence[Mapping[str, Any]], opt: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a later resume is compared with, in plain values.

    Args:
        names: Where each optimizer stands in ``train``: ``optim_g`` ...
        optimizers: The optimizers, fresh: some schedulers change their options in training.
        schedulers: The plain state of each scheduler, fresh.
        opt: All options.
    """
    section = opt["datasets"]["train"]
    drawn = {key: value for key, value in section.items() if key not in _LOADING}
    accumulate = int((opt.get("train") or {}).get("accumulate") or 1)
    return {
        "optimizers": dict(zip(names, map(_optimizer, optimizers))),
        "schedulers": dict(zip(names, ({key: repr(value) for key, value in _flat(state)} for state in schedulers))),
        "batch": int(section.get("batch_size_per_gpu") or 1) * _processes(opt) * accumulate,
        "manual_seed": int(opt.get("manual_seed") or 0),
        "data": f"{zlib.crc32(json.dumps(drawn, sort_keys=True, default=str).encode()):08x}",
    }


def resume_notes(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each difference; what the state does not say is not compared.

    Args:
        recorded: ``present_setting`` of the run that wrote the state.
        present: That of the run that reads it.

    Example:
        >>> resume_notes({"batch": 8}, {"batch": 16})
        ['batch: 8 images a step when the state was written, 16 from here on.']
    """
    notes = []
    for kind, label in (("optimizers", "train.{}"), ("schedulers", "train.scheduler ({})")):
        for name, before in recorded.get(kind, {}).items():
            now = present.get(kind, {}).get(name, {})
            for key in sorted(set(before) & set(now)):
                if before[key] != now[key]:
                    kept = "the option file's is used" if key == "type" else "the state's is kept"
                    where = f"{label.format(name)}.{key}"
                    notes.append(f"{where}: {before[key]} in the state, {now[key]} in the option file; {kept}.")
    if _differ(recorded, present, "batch"):
        notes.append(
            f"batch: {recorded['batch']} images a step when the state was written, {present['batch']} from here on."
        )
    if _differ(recorded, present, "manual_seed"):
        notes.append(
            f"manual_seed: {recorded['manual_seed']} when the state was written, {present['manual_seed']} from here "
            "on: other samples and another order than those of an undisturbed run."
        )
    if _differ(recorded, present, "data"):
        notes.append("datasets.train: its options are not those of the state: other samples, or another order.")
    return notes


def check_optimizers(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse to go on with an optimizer of another type, whose state is another one; Adam and AdamW share theirs.

    Raises:
        CheckpointError: The types differ.
    """
    for name, before in recorded.get("optimizers", {}).items():
        types = {before.get("type"), present["optimizers"].get(name, {}).get("type")} - {None}
        if len(types) > 1 and types != {"Adam", "AdamW"}:
            raise CheckpointError(
                f"path.resume_state: it was written with train.{name}.type: {before['type']}, whose state the option "
                f"file's {present['optimizers'][name]['type']} cannot take. Resume with the former, or start a new run "
                "from the weights with path.pretrain_network_*."
            )


def setting_in_force(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """Return the setting after a resume: optimizers and schedulers went on with what the state holds."""
    kept: dict[str, Any] = {}
    for kind in ("optimizers", "schedulers"):
        kept[kind] = {
            name: {**now, **{k: v for k, v in recorded.get(kind, {}).get(name, {}).items() if k in now and k != "type"}}
            for name, now in present[kind].items()
        }
    return {**present, **kept}


def _differ(recorded: Mapping[str, Any], present: Mapping[str, Any], key: str) -> bool:
    return key in recorded and key in present and recorded[key] != present[key]


def _optimizer(optimizer: Any) -> dict[str, Any]:
    """Return the type and the options of an optimizer; ``lr`` is the one that its schedule starts from."""
    group = optimizer.param_groups[0]
    plain = (bool, int, float, str, tuple, list)
    values = {key: value for key, value in group.items() if isinstance(value, plain) and key not in ("params", "lr")}
    rate = values.pop("initial_lr", group["lr"])
    options = {"lr": rate, **values}
    return {"type": type(optimizer).__name__, **{key: repr(value) for key, value in options.items()}}


def _flat(state: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = enumerate(state) if isinstance(state, (list, tuple)) else state.items()
    for key, value in items:
        if key in _COUNTERS:
            continue
        nested = isinstance(value, Mapping) or (isinstance(value, (list, tuple)) and any(map(_is_mapping, value)))
        if nested:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _processes(opt: Mapping[str, Any]) -> int:
    return int(opt["world_size"]) if opt.get("dist") else max(1, int(opt["num_gpu"]))
