"""SPN, "Learning from History" (Wu et al., AAAI 2024): plain restoration with the self-prior negative loss."""

from __future__ import annotations

from torch import nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.registration import provides
from basicsr_plugins.models.restoration_model import RestorationModel
from basicsr_plugins.training.run_options import RunOptions

__all__ = ["SPNModel"]


@provides("model")
class SPNModel(RestorationModel):
    """Restoration whose output is pushed away from those of earlier states of the network on the same image.

    Every recipe takes ``train.spn_opt``; this one requires it. See ``negatives/ingredient.py`` for its parts.

    Raises:
        OptionError: ``train.spn_opt`` is missing or wrong.

    .. code-block:: yaml

        model_type: SPNModel
        network_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 16, upscale: 4}
        train:
          total_iter: 300000
          optim_g: {type: Adam, lr: !!float 1e-4}
          pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
          spn_opt:
            loss: {type: SPNLoss, loss_weight: !!float 1e-4}
            negatives: {steps: [100, 500, 1000, 2000], decay: 0.1}
    """

    def setup_losses(self) -> None:
        """Require the ingredient."""
        self._require(self.run)
        super().setup_losses()

    @classmethod
    def check_recipe(cls, run: RunOptions, networks: dict[str, nn.Module]) -> None:
        """Require the ingredient before training starts."""
        super().check_recipe(run, networks)
        if run.is_train:
            cls._require(run)

    @staticmethod
    def _require(run: RunOptions) -> None:
        if run.train.spn_opt is None:
            raise OptionError(
                "train.spn_opt: SPNModel needs this section; `spn_opt: {}` has the paper's lambda, steps and w. "
                "Without it, use model_type: RestorationModel."
            )
