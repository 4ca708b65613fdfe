"""The one file that reaches into BasicSR: its stable spots, and the three places that are mended from outside.

Mended (each only acts on what is ours; everything else runs stock code unchanged):

* ``parse_options``: option files that use our models, data sets or networks are checked before BasicSR makes its
  experiment folder.
* ``EnlargedSampler.set_epoch`` / ``__iter__``: data sets that draw from (seed, epoch, index) are told the epoch and get
  the index before it is taken modulo the length, so that repeats of an image draw differently; after a resume the first
  epoch goes on where it was left. BasicSR's own worker seeding repeats the same draws in every epoch.
"""

from __future__ import annotations

import functools
import importlib
import sys
import weakref
from typing import TYPE_CHECKING, Any, Callable

from basicsr_plugins.errors import DependencyError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["current_sampler", "is_loaded", "logger", "mend", "registries", "skip_samples"]

#: weak: a training that is over counts no batches of the next one
_current_sampler: weakref.ref[Any] | None = None
_samples_to_skip = 0
_before_skipping: Callable[[], None] | None = None


def registries() -> dict[str, Any]:
    """Import BasicSR and return its five registries by kind (``arch``, ``dataset``, ``loss``, ``metric``, ``model``).

    Raises:
        DependencyError: BasicSR is missing, does not import, or is a fork without registries.
    """
    from basicsr_plugins._startup import _basicsr_plugins_bootstrap as bootstrap

    bootstrap.install_compat()
    try:
        importlib.import_module(bootstrap.SIGNAL)
        bootstrap.withdraw_stand_in()
        registry = importlib.import_module("basicsr.utils.registry")
        return {
            name.split("_")[0].lower(): getattr(registry, name)
            for name in ("ARCH_REGISTRY", "DATASET_REGISTRY", "LOSS_REGISTRY", "METRIC_REGISTRY", "MODEL_REGISTRY")
        }
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "basicsr":
            found = getattr(sys.modules.get("basicsr"), "__file__", None) or "nothing"
            raise DependencyError(
                f"BasicSR with registries cannot be imported (no module {error.name!r}; basicsr is {found}). Install "
                "it (pip install --no-build-isolation basicsr) or put a checkout on PYTHONPATH. Forks that only share "
                "the name have no registries and cannot be extended."
            ) from error
        raise DependencyError(f"BasicSR does not import: {error}. Install the package that it misses.") from error
    except (ImportError, AttributeError) as error:
        raise DependencyError(f"BasicSR does not import, or has no registries: {error}.") from error


def is_loaded() -> bool:
    """Whether BasicSR has been imported in this process."""
    return "basicsr.models" in sys.modules


def logger() -> Any:
    """Return BasicSR's root logger."""
    from basicsr.utils import get_root_logger

    return get_root_logger()


def mend() -> None:
    """Apply the three mends. Idempotent."""
    _mend_options()
    _mend_sampler()


def current_sampler() -> Any:
    """Return the ``EnlargedSampler`` of the running training, or None."""
    return None if _current_sampler is None else _current_sampler()


def skip_samples(count: int, before: Callable[[], None] | None = None) -> None:
    """Let the next epoch of the training sampler begin after its first ``count`` samples (exact resume).

    Args:
        count: Samples of this rank.
        before: Called once, when that epoch's iteration begins.
    """
    global _samples_to_skip, _before_skipping
    _samples_to_skip, _before_skipping = count, before


def _mend_options() -> None:
    options = importlib.import_module("basicsr.utils.options")
    stock_parse = options.parse_options
    if getattr(stock_parse, "basicsr_plugins_mended", False):
        return

    @functools.wraps(stock_parse)
    def parse_options(*args: Any, **kwargs: Any) -> Any:
        result = stock_parse(*args, **kwargs)
        from basicsr_plugins.checking import check_run

        try:
            check_run(result[0])
            _fill_gaps(result[0])
        except PluginError as error:
            # a command-line entry, like argparse's own errors: one message, an exit code, and nothing written yet
            raise SystemExit(f"basicsr_plugins: {error}") from None
        return result

    parse_options.basicsr_plugins_mended = True  # type: ignore[attr-defined]
    options.parse_options = parse_options
    for name in ("basicsr", "basicsr.train", "basicsr.test"):  # copies, where they were imported before us
        module = sys.modules.get(name)
        if getattr(module, "parse_options", None) is stock_parse:
            module.parse_options = parse_options  # type: ignore[union-attr]


def _fill_gaps(opt: dict[str, Any]) -> None:
    """Give stock's loops the switches that they read without a default (only where a model of ours runs)."""
    from basicsr_plugins import registration

    ours = {*registration.provided("model"), *registration.renamed("model").values()}
    if opt.get("model_type") in ours and opt.get("val") is not None:
        opt["val"].setdefault("save_img", False)
        if opt.get("is_train"):
            opt["val"].setdefault("val_freq", float("inf"))  # at the end only
        else:
            opt["val"].setdefault("suffix", None)


def _mend_sampler() -> None:
    sampler_class = importlib.import_module("basicsr.data.data_sampler").EnlargedSampler
    stock_set_epoch: Callable[..., None] = sampler_class.set_epoch
    stock_iter: Callable[..., Iterator[int]] = sampler_class.__iter__
    if getattr(stock_set_epoch, "basicsr_plugins_mended", False):
        return

    @functools.wraps(stock_set_epoch)
    def set_epoch(self: Any, epoch: int) -> None:
        global _current_sampler, _samples_to_skip, _before_skipping
        stock_set_epoch(self, epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        _current_sampler = weakref.ref(self)
        # taken here and not by the first iterator: stock's prefetchers make one before the first epoch
        self.skipped_samples, _samples_to_skip = _samples_to_skip, 0
        self.before_skipping, _before_skipping = _before_skipping, None

    @functools.wraps(stock_iter)
    def iterate(self: Any) -> Iterator[int]:
        before, self.before_skipping = getattr(self, "before_skipping", None), None
        if before is not None:
            before()
        if getattr(self.dataset, "takes_virtual_index", False):
            indices = iter(virtual_indices(self))
        else:
            indices = stock_iter(self)
        for _ in range(getattr(self, "skipped_samples", 0)):
            next(indices, None)
        return indices

    set_epoch.basicsr_plugins_mended = True  # type: ignore[attr-defined]
    sampler_class.set_epoch = set_epoch
    sampler_class.__iter__ = iterate


def virtual_indices(sampler: Any) -> list[int]:
    """Return this rank's indices of the epoch in stock's order, before stock takes them modulo the length."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(sampler.epoch)
    order = torch.randperm(sampler.total_size, generator=generator).tolist()
    return order[sampler.rank : sampler.total_size : sampler.num_replicas]
