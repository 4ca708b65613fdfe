"""What reaches into BasicSR: its registries and logger, its sampler, and what is installed."""

from basicsr_plugins.stock.host import is_loaded, logger, registries, silent_log

__all__ = ["is_loaded", "logger", "registries", "silent_log"]
