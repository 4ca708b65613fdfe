"""Our scope in MMEngine: ``type='basicsr_plugins.SPNLoss'`` works in any MMEngine configuration.

Nobody has to import this file. MMEngine imports ``<scope>.registry`` itself when a type is written with a scope it has
not met; without MMEngine it is never read.
"""

from __future__ import annotations

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

from basicsr_plugins.core.registration import provided
from basicsr_plugins.negatives import NegativeModels

__all__ = ["MODELS"]

MODELS = Registry("model", parent=MMENGINE_MODELS, scope="basicsr_plugins")

for _name, _loss in provided("loss").items():
    MODELS.register_module(name=_name, module=_loss)
MODELS.register_module(name="NegativeModels", module=NegativeModels)
