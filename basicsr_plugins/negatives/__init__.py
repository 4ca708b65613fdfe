"""SPN's EMA negative models, their options, and ``train.spn_opt`` for any recipe."""

from basicsr_plugins.core.unwrap import unwrapped
from basicsr_plugins.negatives.negative_models import NegativeModels, fresh_copy, mix_start, output_spread

__all__ = ["NegativeModels", "fresh_copy", "mix_start", "output_spread", "unwrapped"]
