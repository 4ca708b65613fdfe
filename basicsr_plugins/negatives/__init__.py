"""SPN's EMA negative models, their options, and the ingredient ``train.spn_opt`` that any recipe takes."""

from basicsr_plugins.core.unwrap import unwrapped
from basicsr_plugins.negatives.negative_models import NegativeModels, fresh_copy, mix_start, output_spread

__all__ = ["NegativeModels", "fresh_copy", "mix_start", "output_spread", "unwrapped"]
