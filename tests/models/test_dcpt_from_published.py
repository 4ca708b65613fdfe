"""Published DCPT checkpoints, converted, are what a DCPT run starts from."""

from __future__ import annotations

import pytest
import torch
from archs.golden import load_case, seeded_state

import basicsr_plugins
from basicsr_plugins import checkpoints
from basicsr_plugins.core.registration import lookup


@pytest.mark.parametrize(
    ("case", "network", "layers"),
    [
        ("dcpt_nafnet", "NAFNet", ["decoders.3", "decoders.2", "decoders.1"]),  # what the golden classifier reads
        ("dcpt_swinir", "SwinIR", None),
        ("dcpt_restormer", "Restormer", None),
        ("dcpt_promptir", "PromptIR", None),
    ],
)
def test_a_run_starts_from_published_weights(case, network, layers, tmp_path):
    basicsr_plugins.register()
    options, weights = checkpoints.convert(seeded_state(load_case(case)[0]), "dcpt", network)
    paths = {"pretrain_network_g": str(tmp_path / "g.pth")}
    checkpoints.write(paths["pretrain_network_g"], weights, options)
    classifier = {"type": "DegradationClassifier", "preset": "slim", "num_classes": 5}
    if layers:
        classifier, dc = checkpoints.convert(
            seeded_state(load_case("dcpt_classifier")[0]), "dcpt", "DegradationClassifier"
        )
        paths["pretrain_network_dc"] = str(tmp_path / "dc.pth")
        checkpoints.write(paths["pretrain_network_dc"], dc, classifier)
    adam = {"type": "AdamW", "lr": 1e-4}
    loss = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
    opt = {
        "name": "published", "model_type": "DCPTModel", "scale": 1, "num_gpu": 0, "dist": False, "rank": 0,
        "world_size": 1, "is_train": True, "network_g": options, "network_dc": classifier, "path": paths,
        "datasets": {"train": {"batch_size_per_gpu": 1}}, "val": {},
        "train": {"total_iter": 1, "optim_g": adam, "optim_dc": adam, "pixel_opt": loss, "feature_layers": layers},
    }  # fmt: skip
    model = lookup("model", "DCPTModel")(opt)
    for key, value in model.net_g.state_dict().items():
        assert torch.equal(value, weights[key]), key
    if layers:
        assert all(torch.equal(value, dc[key]) for key, value in model.net_dc.state_dict().items())
    image = torch.rand(1, 3, 32, 32)
    model.feed_data({"lq": image * 0.5, "gt": image, "degradation": torch.tensor([2])})
    model.optimize_parameters(1)
    log = model.get_current_log()
    assert set(log) == {"l_pix", "l_cls"}
    changed = [key for key, value in model.net_g.state_dict().items() if not torch.equal(value, weights[key])]
    assert changed
