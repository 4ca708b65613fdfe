"""Plain restoration, evaluated as in the deraining-generalization papers (arXiv 2305.15134, 2502.12600)."""

from __future__ import annotations

from basicsr_plugins.core.registration import provides
from basicsr_plugins.models.parts.decoupled_scores import DecoupledScores
from basicsr_plugins.models.restoration_model import RestorationModel

__all__ = ["GeneralizationStudyModel"]


@provides("model")
class GeneralizationStudyModel(DecoupledScores, RestorationModel):
    """``RestorationModel`` whose validation reports E_R, E_B, their oracle, removal ratio, residual and removal.

    Trains any network (``RestorationResNet``, ``UNet``, stock ``SwinIR`` ...). The figures of the last validation are
    also written to ``study_results.json`` in the run's folder, where ``basicsr-plugins study rain`` collects them.

    .. code-block:: yaml

        model_type: GeneralizationStudyModel
        network_g: {type: RestorationResNet}
        datasets:
          train: {name: rain, type: RainSynthesisDataset, dataroot_gt: datasets/x/train, num_backgrounds: 64,
                  rain: {preset: medium}}
          val_1: {name: unseen, type: RainSynthesisDataset, dataroot_gt: datasets/x/val, rain: {preset: large}}
    """
