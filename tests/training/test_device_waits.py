"""No recipe mixes devices, and a training step waits for the GPU as often as is written here; it may only fall."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import tiny_runs
import torch
from device_tags import PretendedGPU

import basicsr_plugins
from basicsr_plugins.core import registration
from basicsr_plugins.losses import feature_distance

pytestmark = pytest.mark.skipif(
    not hasattr(torch.amp, "GradScaler"), reason="the counts are those of torch 2.3 and newer; older ones wait more"
)
#: Before the iteration that is counted: the first calls look at the range of their images, optimizers make their state.
WARM_UP = 3
#: One transfer brings all losses and the gradients' norm to the host, whatever the recipe and however many its phases.
ONCE = (1, 0)

WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16", "grad_clip": 0.1},
    "fp16": {"precision": "fp16"},
    "ema, accumulate": {"ema_decay": 0.9, "accumulate": 2, "channels_last": True},
}


def contrastive(name: str, negatives: Any = None, **arguments: Any) -> dict[str, Any]:
    """Return the changes of an option file that make SPN's loss another one, over two layers of a VGG."""
    features = {"features": "vgg11", "weights": "random", "layers": {"relu1_1": 0.5, "relu2_1": 1.0}}
    spn = {"loss": {"type": name, **features, **arguments}, "negatives": negatives or {}, "guard": {"warmup_iter": 0}}
    return {"train": {"spn_opt": spn if negatives else {key: spn[key] for key in ("loss", "guard")}}}


GUIDED = {
    "model_type": "DCGuidedModel",
    "network_dc": {"type": "DegradationClassifier", "preset": "slim", "num_classes": 2},
    "train": {"feature_layers": ["body.3", "body.1"], "target_class": 1},
}
YES_OR_NO = {"labels": ["noise", ["noise", "haze"]], "classification_opt": {"type": "BinaryCrossEntropyLoss"}}
SEGMENTS = {
    "model_type": "ABAIRPretrainModel",
    "network_s": {"type": "SegmentationHead", "num_classes": 2, "width": 4},
    "train": {"optim_s": tiny_runs.ADAM, "segmentation_layer": "body.1"},
}
VQGAN = {
    "type": "VQGAN", "unit_range": True, "n_embed": 16, "embed_dim": 4,
    "ddconfig": {"double_z": False, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
                 "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0},
}  # fmt: skip
DRAWS = {
    "model_type": "VQGANModel",
    "network_g": VQGAN,
    "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4},
    "train": {"optim_d": tiny_runs.ADAM, "net_d_start": 2},
}
#: Beyond ``RECIPES``: name -> recipe to start from, changes, (waits, copies).
VARIANTS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "several losses": ("plain", {"train": {"extra_losses": {"l_ssim": {"type": "SSIMLoss"}}}}, ONCE),
    "yes or no": ("dcpt", {"train": YES_OR_NO}, ONCE),
    "masks": ("dcpt", {"train": {"mask_ratio": 0.5, "mask_patch": 4}}, ONCE),
    "classifier alone": ("dcpt", {"train": {"train_only": "classifier"}}, ONCE),
    "blend": (
        "adapter",
        {
            "model_type": "AdapterBlendModel",
            "network_e": {"type": "DegradationEstimator", "preset": "tiny"},
            "blend": {"adapters": {"noise": "ADAPTER", "haze": "ADAPTER"}},
            "train": {"optim_e": tiny_runs.ADAM},
        },
        ONCE,
    ),
    "guided": ("plain", GUIDED, ONCE),
    "guided, binary": ("plain", tiny_runs.merge(GUIDED, {"train": {"guidance": "binary"}}), ONCE),
    "segmentation": ("plain", SEGMENTS, ONCE),
    "VQGAN": ("plain", DRAWS, ONCE),
    "SPN": ("plain", contrastive("SPNLoss", {"steps": [1, 2, 3]}), ONCE),
    # whether a negative is replaced depends on the output's error
    "SPN, adaptive": ("plain", contrastive("SPNLoss", {"mode": "adaptive"}), (2, 0)),
    "CR": ("plain", contrastive("ContrastiveRegularizationLoss"), ONCE),
    "CCR": ("plain", contrastive("CurricularContrastiveLoss", {"steps": [1, 2]}, thresholds=[20, 30]), ONCE),
    # its samples are drawn on the CPU: one copy of the factors, one of the kernels
    "PCL, infonce": ("plain", contrastive("PCLLoss"), (1, 2)),
    "PCL, l1": ("plain", contrastive("PCLLoss", form="l1"), (1, 2)),
}  # fmt: skip


def build(options: dict[str, Any]) -> Any:
    """Build a recipe's model."""
    basicsr_plugins.register()
    return registration.lookup("model", options["model_type"])(options)


def batch(iteration: int) -> dict[str, Any]:
    """Return a batch with a map of degradations."""
    data = tiny_runs.make_batch(size=16, seed=iteration)
    return {**data, "degradation_map": torch.randint(2, data["lq"][:, 0].shape)}


def look_at(folder: Any, recipe: str, changes: dict[str, Any]) -> PretendedGPU:
    """Train a recipe on the pretended GPU; return it with what happened in the last iteration and every mix."""
    with PretendedGPU() as gpu:
        options = tiny_runs.parsed_options(folder, recipe, **tiny_runs.merge(changes, {"num_gpu": 1}))
        model = build({**options, "network_g": changes.get("network_g", options["network_g"])})
        assert model.device.type == next(model.net_g.parameters()).device.type == "cuda"
        for iteration in range(1, WARM_UP + 2):
            model.update_learning_rate(iteration)
            model.feed_data(batch(iteration))
            gpu.happened = gpu.kinds("mix")
            model.optimize_parameters(iteration)
        gpu.step = list(gpu.happened)
        assert all(map(math.isfinite, model.get_current_log().values()))
    return gpu


def waits(gpu: PretendedGPU) -> tuple[int, int]:
    """Return how often the last iteration read something back, and how often it copied from or to the host."""
    return tuple(sum(event.kind == kind for event in gpu.step) for kind in ("wait", "copy"))


@pytest.fixture(autouse=True)
def _few_looks_at_ranges(monkeypatch):
    monkeypatch.setattr(feature_distance, "RANGE_CHECKS", WARM_UP)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_a_step_of_a_recipe_waits_once_for_the_device(tmp_path, recipe, way):
    gpu = look_at(tmp_path, recipe, {"train": WAYS[way]})
    assert gpu.kinds("mix") == []
    assert waits(gpu) == ONCE, gpu.step


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_of_a_variant_waits_as_often_as_it_says(tmp_path, name):
    recipe, changes, expected = VARIANTS[name]
    if "blend" in changes:
        tiny_runs.make_model(tmp_path, "adapter").save(0, -1)
        saved = str(tmp_path / "experiments" / "tiny" / "models" / "adapter_latest")
        changes = {**changes, "blend": {"adapters": dict.fromkeys(changes["blend"]["adapters"], saved)}}
    gpu = look_at(tmp_path, recipe, changes)
    assert gpu.kinds("mix") == []
    assert waits(gpu) == expected, gpu.step


@pytest.fixture
def two_ranks():
    """Pretend to be the first of two ranks."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield {"dist": True, "rank": 0, "world_size": 2}
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_ranks_exchange_all_flags_at_once_and_all_gradients_at_once(tmp_path, recipe, two_ranks):
    gpu = look_at(tmp_path, recipe, two_ranks)
    assert gpu.kinds("mix") == []
    assert [event.what for event in gpu.step if event.kind == "exchange"] == ["all_reduce", "all_reduce"]
    assert waits(gpu) == (2, 1), gpu.step


@pytest.mark.parametrize("careless", [lambda loss: loss.item(), lambda loss: loss > 0 or None, lambda loss: loss.cpu()])
def test_a_wait_that_somebody_adds_is_seen(tmp_path, monkeypatch, careless):
    from basicsr_plugins.models.restoration_model import RestorationModel

    losses = RestorationModel.restoration_losses

    def wait(self: Any, *args: Any) -> Any:
        found = losses(self, *args)
        careless(found["l_pix"])
        return found

    monkeypatch.setattr(RestorationModel, "restoration_losses", wait)
    assert sum(waits(look_at(tmp_path, "plain", {}))) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_cuda_itself_counts_one_wait(tmp_path, recipe):
    model = tiny_runs.make_model(tmp_path, recipe, num_gpu=1)
    for iteration in range(1, WARM_UP + 1):
        tiny_runs.train(model, [iteration])
    model.feed_data(tiny_runs.make_batch())
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.optimize_parameters(WARM_UP + 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing CUDA operation" in str(warning.message) for warning in caught) == 1
