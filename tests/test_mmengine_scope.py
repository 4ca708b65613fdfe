"""Our losses in MMEngine's registry, in a real Runner, and at no cost to anyone without MMEngine."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import Dataset

from basicsr_plugins.losses.spn_loss import SPNLoss
from basicsr_plugins.negatives import NegativeModels


class Images(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        gt = torch.rand(3, 8, 8, generator=generator)
        return {"lq": gt * 0.8, "gt": gt}


def test_type_with_our_scope_is_found():
    from mmengine.registry import MODELS

    loss = MODELS.build({"type": "basicsr_plugins.SPNLoss", "features": "pixel", "loss_weight": 0.5})
    assert isinstance(loss, SPNLoss)
    assert loss.loss_weight == 0.5
    for name in ("ContrastiveRegularizationLoss", "CurricularContrastiveLoss", "PCLLoss"):
        assert isinstance(MODELS.build({"type": f"basicsr_plugins.{name}", "features": "pixel"}), nn.Module)
    assert "SPNLoss" not in MODELS.module_dict  # our scope, not the root's


def test_a_real_runner_trains_with_it(tmp_path):
    from mmengine.model import BaseModel
    from mmengine.registry import MODELS
    from mmengine.runner import Runner

    class Restorer(BaseModel):
        """What an MMEngine repository writes: its own model, our loss and negatives by type."""

        def __init__(self, spn_loss, negatives):
            super().__init__()
            self.net = nn.Conv2d(3, 3, 3, padding=1)
            self.spn_loss = MODELS.build(spn_loss)
            self.negatives = MODELS.build({"model": self.net, **negatives})

        def forward(self, lq, gt, mode="tensor"):
            lq, gt = torch.stack(lq), torch.stack(gt)  # MMEngine's default collation keeps lists
            out = self.net(lq)
            if mode != "loss":
                return out
            losses = {"loss_pix": (out - gt).abs().mean()}
            if self.negatives.ready:
                losses["loss_spn"] = self.spn_loss(out, self.negatives(lq))
            return losses

        def train_step(self, data, optim_wrapper):
            logged = super().train_step(data, optim_wrapper)
            self.negatives.update(self.net)
            return logged

    model = Restorer(
        {"type": "basicsr_plugins.SPNLoss", "features": "pixel", "loss_weight": 0.01},
        {"type": "basicsr_plugins.NegativeModels", "steps": [1, 2]},
    )
    before = model.net.weight.detach().clone()
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader={
            "batch_size": 2,
            "num_workers": 0,
            "dataset": Images(),
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        },
        train_cfg={"by_epoch": False, "max_iters": 6},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 6, "by_epoch": False}},
        default_scope="mmengine",
        experiment_name="spn",
    )
    runner.train()
    assert not torch.equal(model.net.weight, before)
    assert model.negatives.iteration == 6
    assert runner.message_hub.get_scalar("train/loss_spn").current() < 0
    # the negatives travel in the checkpoint
    saved = torch.load(tmp_path / "iter_6.pth", weights_only=False)["state_dict"]
    assert saved["negatives._extra_state"][0] == 6
    assert "negatives.models.0.module.weight" in saved


def test_negatives_of_any_network():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.PReLU())
    assert NegativeModels(net, [1])(torch.rand(1, 3, 4, 4)).shape == (1, 1, 3, 4, 4)
