"""train.compile compiles what a step runs, tapped passes included, and nothing for the sizes of a validation set."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tiny_runs
import torch
from gloo_ranks import Images
from torch.utils.data import DataLoader

from basicsr_plugins.features import FeatureTap

pytestmark = pytest.mark.skipif(not hasattr(torch.nn.Module, "compile"), reason="train.compile needs torch 2.2")
PLAIN = {"model_type": "DCGuidedModel", "train": {"feature_layers": ["body.3", "body.1"], "target_class": 1}}
CLASSIFIER = {"network_dc": {"type": "DegradationClassifier", "preset": "slim", "num_classes": 2}}
#: name -> recipe, changes, how often compiled code runs in a step (net_g or its tapped pass, and what reads it)
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "plain": ("plain", {}, 1),
    "spn": ("spn", {}, 1),
    "dcpt": ("dcpt", {}, 4),  # tapped pass, classifier on both halves of the batch, generation
    "masks": ("dcpt", {"train": {"mask_ratio": 0.5, "mask_patch": 4}}, 2),
    "classifier alone": ("dcpt", {"train": {"train_only": "classifier"}}, 2),
    "guided": ("plain", tiny_runs.merge(PLAIN, CLASSIFIER), 2),
    "segmentation": (
        "plain",
        {
            "model_type": "ABAIRPretrainModel",
            "network_s": {"type": "SegmentationHead", "num_classes": 2, "width": 4},
            "train": {"optim_s": tiny_runs.ADAM, "segmentation_layer": "body.1"},
        },
        2,
    ),
}


@pytest.fixture
def compiler():
    """Return a backend that runs graphs as they are, and what it counts."""
    torch._dynamo.reset()
    counted: Counter[str] = Counter()

    def backend(graph: Any, example_inputs: Any) -> Any:
        counted["compiled"] += 1

        def run(*args: Any) -> Any:
            counted["run"] += 1
            return graph.forward(*args)

        return run

    yield backend, counted
    torch._dynamo.reset()


def batch(iteration: int) -> dict[str, Any]:
    """Return a batch with a map of degradations."""
    data = tiny_runs.make_batch(seed=iteration)
    return {**data, "degradation_map": (data["lq"][:, 0] > 0.5).long()}


def train(model: Any, iterations: Any) -> list[dict[str, float]]:
    """Run some iterations."""
    return [log for i in iterations for log in tiny_runs.train(model, [i], batch(i))]


@pytest.mark.parametrize("name", CASES)
def test_every_pass_of_a_step_is_compiled_and_no_result_changes(tmp_path, name, compiler):
    recipe, changes, passes = CASES[name]
    backend, counted = compiler
    plain = tiny_runs.make_model(tmp_path, recipe, **changes)
    compiled = tiny_runs.make_model(
        tmp_path, recipe, **tiny_runs.merge(changes, {"train": {"compile": {"backend": backend}}})
    )
    assert train(compiled, [1, 2]) == train(plain, [1, 2])
    made = counted["compiled"]
    counted.clear()
    assert train(compiled, [3]) == train(plain, [3])
    assert counted == {"run": passes}
    assert made <= passes + 1  # the classifier's halves, or a step's first and later ones, may share theirs


def test_validation_compiles_nothing_for_the_sizes_of_its_images(tmp_path, compiler):
    if not hasattr(torch.compiler, "set_stance"):
        pytest.skip("torch 2.6 learned to leave compiled code alone")
    backend, counted = compiler
    changes = {"train": {"compile": {"backend": backend}}, "val": {"val_freq": 1, "metrics": {}}}
    model = tiny_runs.make_model(tmp_path, "dcpt", **changes)
    train(model, [1])
    counted.clear()
    model.validation(DataLoader(Images(), batch_size=1), 1, None, save_img=False)
    assert "accuracy" in model.metric_results
    assert counted == {}
    train(model, [2])
    assert counted["run"] == 4


class Tokens(torch.nn.Module):
    """A convolution, a layer on tokens, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.mix = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform (n, 3, h, w)."""
        first = self.first(x)
        tokens = self.mix(first.flatten(2).transpose(1, 2))
        return self.last(first + tokens.transpose(1, 2).unflatten(2, first.shape[-2:]))


def test_a_compiled_tap_returns_what_a_plain_one_does(compiler):
    backend, counted = compiler
    network = Tokens()
    tap, plain = FeatureTap(network, ["mix", "first"]), FeatureTap(network, ["mix", "first"])
    tap.compile(backend=backend)
    for size in (16, 24):
        image = torch.rand(1, 3, size, size + 2, requires_grad=True)
        ours, theirs = tap(image), plain(image)
        assert [feature.shape for feature in ours] == [(1, 3, size, size + 2)] * 2
        for one, other in zip(ours, theirs):
            torch.testing.assert_close(one, other)
        output, features = tap.with_output(image)
        torch.testing.assert_close(output, network(image))
        assert len(features) == 2
    assert counted["compiled"] >= 2
    assert not any(module._forward_hooks for module in network.modules())
