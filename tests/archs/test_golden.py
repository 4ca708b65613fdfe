"""Every network against the recorded outputs of the published one: same keys, same shapes, same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import largest_error, load_case, parameter_shapes, seeded_input, seeded_state

from basicsr_plugins.core.registration import provided

# case -> our class; the constructor arguments are the source's own
CASES = {
    "restormer_default": "Restormer",
    "restormer_small_biasfree": "Restormer",
    "nafnet_gopro_w32": "NAFNet",
    "nafnet_tlc_w8": "NAFNetLocal",
    "promptir_default": "PromptIR",
    "ffanet_default": "FFANet",
    "dehazeformer_t": "DehazeFormer",
    "idt_default": "IDT",
}


def build(name, meta):
    network = provided("arch")[CASES[name]](**meta["kwargs"])
    assert parameter_shapes(network) == dict(meta["parameters"])
    network.load_state_dict(seeded_state(meta), strict=False)
    return network.eval()


@pytest.mark.parametrize("name", CASES)
def test_published_output(name):
    meta, expected = load_case(name)
    network = build(name, meta)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == dict(
        meta["parameters"] + meta["buffers"]
    )
    with torch.no_grad():
        assert largest_error(network(seeded_input(meta)), expected) <= 1e-4


def test_published_classifier():
    meta, expected = load_case("dcpt_classifier")
    network = provided("arch")["DegradationClassifier"](**meta["kwargs"])
    assert parameter_shapes(network) == dict(meta["parameters"])
    network.load_state_dict(seeded_state(meta))
    rng = np.random.default_rng([meta["seed"], 9])
    features = [
        torch.from_numpy(rng.standard_normal((2, dim, 64 >> level, 48 >> level)).astype(np.float32))
        for level, dim in enumerate(meta["kwargs"]["feature_dims"])
    ]
    with torch.no_grad():
        assert largest_error(network(features), expected) <= 1e-4
