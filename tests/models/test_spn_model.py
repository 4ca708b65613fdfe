"""``train.spn_opt`` in the recipes: what it adds, to which networks, in which precision, over a resume, on ranks."""

from __future__ import annotations

import copy

import pytest
import torch
import two_ranks
from torch import nn

import basicsr_plugins
from basicsr_plugins import stock
from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.launch.checking import check_options
from basicsr_plugins.losses.uncertainty import uncertainty_term
from basicsr_plugins.negatives.ingredient import SPN as Ingredient
from basicsr_plugins.negatives.ingredient import check_spn

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2, "img_range": 1.0}
SWINIR = {"type": "SwinIR", "upscale": 2, "img_size": 16, "window_size": 8, "img_range": 1.0, "depths": [2],
          "embed_dim": 12, "num_heads": [2], "mlp_ratio": 2, "upsampler": "pixelshuffledirect"}  # fmt: skip
NAFNET = {"type": "NAFNet", "preset": "tiny"}
SPN = {
    "loss": {"type": "SPNLoss", "features": "pixel", "loss_weight": 0.05},
    "negatives": {"steps": [1, 2], "decay": 0.1},
    "guard": {"warmup_iter": 0},
}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


def options(tmp_path, network=None, model="SPNModel", spn=SPN, **train):
    spn = {} if spn is None else {"spn_opt": copy.deepcopy(spn)}
    return {
        "name": "test", "model_type": model, "scale": (network or NAFNET).get("upscale", 1), "num_gpu": 0,
        "dist": False, "rank": 0, "world_size": 1, "is_train": True, "manual_seed": 0,
        "network_g": dict(network or NAFNET),
        "path": {"models": str(tmp_path / "models"), "training_states": str(tmp_path / "states")},
        "datasets": {"train": {"batch_size_per_gpu": 2}},
        "train": {
            "total_iter": 100, "optim_g": {"type": "SGD", "lr": 0.01},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}, **spn, **train,
        },
        "val": {},
    }  # fmt: skip


def build(opt):
    torch.manual_seed(0)
    return lookup("model", opt["model_type"])(copy.deepcopy(opt))


def batch(seed, scale=1, size=32):
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(2, 3, size, size, generator=generator)
    return {"lq": torch.nn.functional.avg_pool2d(gt, scale) if scale > 1 else gt * 0.8, "gt": gt}


def train(model, iterations, first=1):
    logs = []
    for iteration in range(first, first + iterations):
        model.feed_data(batch(iteration, model.scale))
        model.optimize_parameters(iteration)
        logs.append(model.get_current_log())
    return logs


def weights(network):
    return torch.cat([tensor.detach().flatten().float() for tensor in network.state_dict().values()])


@pytest.mark.parametrize(
    "network",
    [EDSR, SWINIR, NAFNET, {"type": "Restormer", "preset": "tiny"}, {"type": "PromptIR", "preset": "tiny"},
     {"type": "FFANet", "preset": "tiny"}, {"type": "IDT", "preset": "tiny"},
     {"type": "ABAIRNet", "preset": "tiny"}, {"type": "RestorationResNet", "num_feat": 4, "num_block": 1},
     {"type": "UNet", "num_feat": 4, "num_level": 2},
     {"type": "DehazeFormer", "preset": "T", "depths": [1, 1, 1, 1, 1], "unit_range": True},
     {"type": "DCPTSwinIR", "img_size": 16, "embed_dim": 12, "depths": [2], "num_heads": [2]}],
    ids=lambda network: network["type"],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stock_and_our_networks(network, precision, tmp_path):
    model = build(options(tmp_path, network, precision=precision))
    size = 64 if network["type"] == "IDT" else 32
    for iteration in range(1, 5):
        model.feed_data(batch(iteration, model.scale, size))
        model.optimize_parameters(iteration)
        log = model.get_current_log()
    assert log["l_spn"] < 0
    assert log["spn_distance"] > 0
    assert all(torch.isfinite(parameter).all() for parameter in model.net_g.parameters())


def test_the_step_is_reconstruction_minus_lambda_times_distance(tmp_path):
    """SGD by hand: the negatives are the weights of equation 1, the gradient that of L_rec - lambda * L_neg."""
    model = build(options(tmp_path))
    reference = copy.deepcopy(model.net_g)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01)
    negatives = [copy.deepcopy(reference) for _ in range(2)]
    for iteration in range(1, 7):
        data = batch(iteration)
        out = reference(data["lq"])
        loss = (out - data["gt"]).abs().mean()
        if iteration > 2:  # the largest step has passed
            with torch.no_grad():
                outputs = [negative(data["lq"]) for negative in negatives]
            loss = loss - 0.05 * sum((out - other).abs().mean() for other in outputs) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for negative, step in zip(negatives, (1, 2)):
                if iteration % step == 0:
                    for own, source in zip(negative.parameters(), reference.parameters()):
                        own.mul_(0.1).add_(source, alpha=0.9)
        train(model, 1, iteration)
        torch.testing.assert_close(weights(model.net_g), weights(reference), rtol=1e-5, atol=1e-6)
    for index in range(2):
        torch.testing.assert_close(weights(model.spn.negatives.models[index].module), weights(negatives[index]))


def recipe(name, tmp_path):
    """Options, and what its batches hold besides, of a recipe in miniature."""
    sgd, opt = {"type": "SGD", "lr": 0.01}, None
    if name == "DCPTModel":
        opt = options(tmp_path, model=name, optim_dc=sgd)
        opt["network_dc"] = {"type": "DegradationClassifier", "preset": "slim", "num_classes": 2}
        return opt, {"degradation": torch.tensor([0, 1])}
    if name == "ABAIRPretrainModel":
        opt = options(tmp_path, model=name, optim_s=sgd)
        opt["network_s"] = {"type": "SegmentationHead", "num_classes": 2}
        return opt, {"degradation_map": torch.zeros(2, 64, 64, dtype=torch.int64)}
    if name == "AdapterModel":
        base = options(tmp_path)
        torch.save({"params": build(base).net_g.state_dict()}, tmp_path / "base.pth")
        opt = options(tmp_path, model=name)
        opt["path"]["pretrain_network_g"] = str(tmp_path / "base.pth")
        opt["adapter"] = {"name": "rain", "peft_opt": {"peft_type": "LORA", "r": 2}}
        return opt, {}
    return options(tmp_path, model=name), {}


@pytest.mark.parametrize("name", ["RestorationModel", "DCPTModel", "ABAIRPretrainModel", "AdapterModel"])
def test_every_restoration_recipe_takes_it(name, tmp_path):
    opt, extra = recipe(name, tmp_path)
    model = build(opt)
    for iteration in range(1, 5):
        model.feed_data({**batch(iteration, size=64), **extra})
        model.optimize_parameters(iteration)
    log = model.get_current_log()
    assert {"l_pix", "l_spn", "spn_distance"} <= set(log)
    assert log["l_spn"] < 0


def test_a_recipe_that_does_not_train_net_g_refuses_it(tmp_path):
    opt = options(tmp_path, model="AdapterBlendModel")
    opt["datasets"] = {}
    opt["network_e"] = {"type": "DegradationEstimator", "num_classes": 2}
    opt["blend"] = {"adapters": {"rain": "rain"}}
    with pytest.raises(OptionError, match=r"train\.spn_opt: AdapterBlendModel does not train net_g"):
        check_options(opt)


def test_negatives_see_what_the_network_saw(tmp_path):
    """DCPT draws the clean image from the clean image; its negatives must too."""
    opt, extra = recipe("DCPTModel", tmp_path)
    model = build(opt)
    seen = []
    for iteration in range(1, 4):
        data = {**batch(iteration, size=64), **extra}
        handle = model.spn.negatives.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model.feed_data(data)
        model.optimize_parameters(iteration)
        handle.remove()
    assert torch.equal(seen[-1], data["gt"])


def test_without_the_option_nothing_is_added(tmp_path):
    model = build(options(tmp_path, model="RestorationModel", spn=None))
    assert set(train(model, 3)[-1]) == {"l_pix"}


def test_nothing_is_added_and_no_negative_runs_before_the_largest_step(tmp_path, monkeypatch):
    spn = {**SPN, "negatives": {"steps": [1, 3]}, "guard": {"warmup_iter": 2}}
    model = build(options(tmp_path, spn=spn))
    logs = train(model, 6)
    assert ["l_spn" in log for log in logs] == [False] * 3 + [True] * 3
    share = [-log["l_spn"] / (0.05 * log["spn_distance"]) for log in logs[3:]]
    assert share == pytest.approx([0.5, 1.0, 1.0], rel=1e-4)


def test_counts_optimizer_steps_under_accumulation(tmp_path):
    model = build(options(tmp_path, accumulate=2))
    train(model, 8)
    assert model.spn.iteration == model.spn.negatives.iteration == 4


@pytest.mark.parametrize("per_step", [None, 1])
def test_resume_is_bit_identical(per_step, tmp_path):
    spn = copy.deepcopy(SPN)
    spn["negatives"].update(steps=[2, 3], selection="random", negatives_per_step=per_step)
    spn["guard"] = {"warmup_iter": 4, "window": 2, "check_every": 1}
    opt = options(tmp_path, spn=spn)
    model = build(opt)
    train(model, 5)
    model.save(0, 5)
    logs = train(model, 4, first=6)
    resumed_opt = copy.deepcopy(opt)
    resumed_opt["path"]["pretrain_network_g"] = str(tmp_path / "models" / "net_g_5.pth")
    resumed = build(resumed_opt)
    resumed.resume_training(torch.load(tmp_path / "states" / "5.state", weights_only=True))
    assert train(resumed, 4, first=6) == logs
    assert torch.equal(weights(resumed.net_g), weights(model.net_g))
    one, other = model.spn.negatives.state_dict(), resumed.spn.negatives.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert model.spn.guard.state_dict() == resumed.spn.guard.state_dict()


def test_resume_with_another_loss_or_from_a_run_without(tmp_path, caplog):
    model = build(options(tmp_path))
    train(model, 1)
    model.save(0, 1)
    state = torch.load(tmp_path / "states" / "1.state", weights_only=True)
    other = {"loss": {"type": "ContrastiveRegularizationLoss", "features": "pixel"}, "guard": {"warmup_iter": 0}}
    with pytest.raises(CheckpointError, match="another contrastive loss than ContrastiveRegularizationLoss"):
        build(options(tmp_path, spn=other)).resume_training(copy.deepcopy(state))
    state["basicsr_plugins"]["spn"] = None
    logger = stock.logger()
    logger.propagate = True
    with caplog.at_level("WARNING", logger="basicsr"):
        build(options(tmp_path)).resume_training(state)
    assert "its negatives start here" in caplog.text


@pytest.mark.parametrize("name", ["ContrastiveRegularizationLoss", "PCLLoss"])
def test_comparison_losses_without_negatives(name, tmp_path):
    spn = {"loss": {"type": name, "features": "pixel"}, "guard": {"warmup_iter": 0}}
    model = build(options(tmp_path, spn=spn))
    assert model.spn.negatives is None
    log = train(model, 2)[-1]
    assert {"ContrastiveRegularizationLoss": "l_cr", "PCLLoss": "l_pcl"}[name] in log


def test_curriculum_follows_the_validation_and_is_resumed(tmp_path):
    torch.save({"params": build(options(tmp_path)).net_g.state_dict()}, tmp_path / "dehazer.pth")
    spn = {
        "loss": {"type": "CurricularContrastiveLoss", "features": "pixel", "thresholds": [20.0, 30.0]},
        "negatives": {"mode": "pretrained", "pretrained": [str(tmp_path / "dehazer.pth")] * 2},
        "guard": {"warmup_iter": 0},
    }
    model = build(options(tmp_path, spn=spn))
    assert "l_ccr" in train(model, 1)[-1]
    model.spn.after_validation({"psnr": 25.0, "ssim": 0.9})
    assert model.spn.loss.negative_weights == pytest.approx([1.25 / 8, 0.75 / 8])
    resumed = build(options(tmp_path, spn=spn))
    resumed.spn.load_state_dict(copy.deepcopy(model.spn.state_dict()))
    assert resumed.spn.loss.negative_weights == model.spn.loss.negative_weights
    with pytest.raises(OptionError, match="follows the metrics named 'psnr' and 'ssim', got PSNR_Y"):
        model.spn.after_validation({"PSNR_Y": 25.0})


def test_table_6_and_the_adaptive_variant(tmp_path):
    for negatives in ({"mode": "random", "count": 2}, {"mode": "adaptive", "count": 2, "threshold": 0.0}):
        model = build(options(tmp_path, spn={**SPN, "negatives": negatives}))
        before = weights(model.spn.negatives.models)
        logs = train(model, 2)
        assert "l_spn" in logs[-1]
        assert "l_spn" in logs[0], "these negatives have no history to wait for"
        moved = not torch.equal(before, weights(model.spn.negatives.models))
        assert moved is (negatives["mode"] == "adaptive")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_adaptive_negatives_take_the_weights_before_the_step(accumulate, tmp_path):
    """Released code: spread, refresh, backward, step. After the step a negative would equal the next network."""
    given = {**SPN, "negatives": {"mode": "adaptive", "count": 2, "threshold": 0.0}}
    model = build(options(tmp_path, spn=given, accumulate=accumulate))
    expected = [weights(negative.module) for negative in model.spn.negatives.models]
    for step in range(3):
        before = weights(model.net_g)
        train(model, accumulate, step * accumulate + 1)
        expected[step % 2] = 0.001 * expected[step % 2] + 0.999 * before
        assert not torch.equal(before, weights(model.net_g))
        for negative, right in zip(model.spn.negatives.models, expected):
            torch.testing.assert_close(weights(negative.module), right, rtol=1e-6, atol=1e-7)
    assert model.spn.negatives.refreshed == 3


def test_uncertainty_weight(tmp_path):
    model = build(options(tmp_path, spn={**SPN, "uncertainty_weight": 0.5}))
    log = train(model, 4)[-1]
    assert log["l_uncertainty"] > 0


def test_uncertainty_is_weighted_and_warmed_up_like_the_rest():
    given = {**SPN, "uncertainty_weight": 0.5, "guard": {"start_iter": 0, "warmup_iter": 4}}
    network = torch.nn.Conv2d(3, 3, 1, bias=False)
    network.weight.data = torch.eye(3)[..., None, None]
    spn = Ingredient(given, network)
    spn.negatives.models[0].module.weight.data += 0.1
    data = batch(1)
    output = network(data["lq"])
    term = uncertainty_term(output, data["gt"], spn.negatives(data["lq"]))
    assert term > 0
    added = spn.losses(output, data["gt"], data["lq"])
    assert added["l_uncertainty"].item() == pytest.approx(0.25 * 0.5 * term.item())


def test_random_negatives_come_from_the_recipes_factory():
    built = []

    def factory():
        built.append(torch.nn.Conv2d(3, 3, 1))
        return built[-1]

    spn = Ingredient({**SPN, "negatives": {"mode": "random", "count": 2}}, torch.nn.Conv2d(3, 3, 1), factory=factory)
    assert len(built) == 2
    assert all(torch.equal(m.module.weight, b.weight) for m, b in zip(spn.negatives.models, built))


def test_frozen_features_are_not_written_into_checkpoints(tmp_path):
    loss = {"type": "SPNLoss", "weights": "random", "features": "vgg11", "layers": {"relu1_1": 1.0}}
    model = build(options(tmp_path, spn={**SPN, "loss": loss}))
    assert model.spn.state_dict()["loss"] == {}


@pytest.mark.parametrize(
    ("spn", "text"),
    [
        ({"losss": {}}, r"train\.spn_opt\.losss: unknown option 'losss'\. Did you mean 'loss'"),
        ({"loss": {"type": "SPNLos"}}, r"train\.spn_opt\.loss\.type: unknown loss 'SPNLos'\. Did you mean 'SPNLoss'"),
        ({"loss": {"type": "L1Loss"}}, r"L1Loss is no contrastive loss"),
        ({"loss": {}}, r"train\.spn_opt\.loss\.type: this option is required"),
        ({"loss": {"type": "SPNLoss", "weight": 1.0}}, r"train\.spn_opt\.loss\.weight: unknown option"),
        ({"loss": {"type": "SPNLoss", "loss_weight": "1e-4"}}, r"loss_weight: expected a number.*!!float 1e-4"),
        ({"loss": {"type": "SPNLoss", "weights": "random", "layers": {"relu9_9": 1.0}}},
         r"train\.spn_opt\.loss\.layers: unknown layer of vgg16 'relu9_9'"),
        ({**SPN, "negatives": {"steps": [-1]}}, r"train\.spn_opt\.negatives\.steps: each must be a whole number"),
        ({**SPN, "negatives": {"steps": []}}, r"N = 0"),
        ({**SPN, "negatives": {"stepps": [1]}}, r"train\.spn_opt\.negatives\.stepps: .*Did you mean 'steps'"),
        ({**SPN, "negatives": {"factory": 1}}, r"negatives\.factory: the recipe gives this itself"),
        ({**SPN, "guard": {"on_collapse": "halt"}}, r"train\.spn_opt\.guard\.on_collapse: unknown action"),
        ({**SPN, "uncertainty_weight": 1.0, "negatives": {"steps": [5]}}, r"at least 2 negatives"),
        ({**SPN, "uncertainty_weight": 1.0, "negatives": {"steps": [5, 9], "negatives_per_step": 1}},
         r"at least 2 negatives in each step"),
        ({"loss": {"type": "PCLLoss", "features": "pixel"}, "negatives": {"steps": [5]}}, r"uses no negative models"),
        (3, r"train\.spn_opt: expected a mapping"),
    ],
)  # fmt: skip
def test_wrong_options_are_found_before_training(spn, text, tmp_path):
    opt = options(tmp_path, spn={})
    opt["train"]["spn_opt"] = spn
    opt["datasets"] = {}
    with pytest.raises(OptionError, match=text):
        check_options(opt)


def test_spn_model_needs_the_section(tmp_path):
    opt = options(tmp_path, spn=None)
    opt["datasets"] = {}
    for call in (check_options, build):
        with pytest.raises(OptionError, match=r"train\.spn_opt: SPNModel needs this section"):
            call(opt)
    opt["model_type"] = "RestorationModel"
    check_options(opt)


def test_missing_vgg_weights_are_named_with_their_option(monkeypatch):
    from basicsr_plugins.core.errors import DependencyError

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(DependencyError, match=r"^train\.spn_opt\.loss\.weights: the pre-trained weights of vgg16"):
        check_spn({"loss": {"type": "SPNLoss"}})


def test_training_images_out_of_range(tmp_path):
    model = build(options(tmp_path))
    model.feed_data({name: image * 2 - 1 for name, image in batch(1).items()})
    with pytest.raises(DataError, match=r"images out of range: expected \[0, 1\].*range_norm"):
        model.optimize_parameters(1)


def test_two_ranks_keep_equal_networks_and_negatives(tmp_path):
    def on_a_rank(rank):
        spn = {**SPN, "negatives": {"steps": [1, 2], "start": 0.3}}
        opt = {**options(tmp_path, spn=spn), "dist": True, "rank": rank, "world_size": 2}
        model = lookup("model", "SPNModel")(opt)
        for iteration in range(1, 5):
            model.feed_data(batch(10 * iteration + rank))  # every rank has its own images
            model.optimize_parameters(iteration)
        with torch.no_grad():
            answers = model.spn.negatives(batch(0)["lq"])
        return weights(model.net_g).tolist(), answers.flatten().tolist()

    first, second = two_ranks.fork(on_a_rank, tmp_path)
    assert first == second


def test_an_untrained_network_may_leave_the_range_and_a_loss_needs_no_feature_distance(monkeypatch):
    net, gt = nn.Conv2d(3, 3, 1), torch.rand(2, 3, 16, 16)
    given = {"loss": {"type": "ContrastiveRegularizationLoss", "features": "pixel"}, "guard": {"warmup_iter": 0}}
    assert set(Ingredient(given, net).losses(gt * 5 - 2.5, gt, gt)) == {"l_cr"}

    class OwnLoss(nn.Module):
        inputs = ("target",)

        def terms(self, output, target):
            return {"l_own": (output - target).abs().mean()}

    monkeypatch.setitem(registration._provided["loss"], "OwnLoss", OwnLoss)
    monkeypatch.setattr(registration, "_registries", {})
    assert set(Ingredient({"loss": {"type": "OwnLoss"}, "guard": {"warmup_iter": 0}}, net).losses(gt, gt, gt)) == {
        "l_own"
    }
