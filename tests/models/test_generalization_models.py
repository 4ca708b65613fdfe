"""Models of the generalization studies: decoupled scores at validation, VQGAN stage 1, content prior stage 2."""

from __future__ import annotations

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from basicsr_plugins import register
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.launch.checking import check_options
from basicsr_plugins.metrics.deraining import decoupled_errors

DDCONFIG = {
    "z_channels": 8,
    "resolution": 32,
    "ch": 32,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
}
VQGAN = {"type": "VQGAN", "unit_range": True, "n_embed": 16, "embed_dim": 4, "ddconfig": DDCONFIG}
ADAM = {"type": "Adam", "lr": 1e-3}
L1 = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}


@pytest.fixture(autouse=True, scope="module")
def _registered():
    register()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        image = np.random.default_rng(index).integers(60, 160, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC))
    return folder


def options(tmp_path, photos, model_type, **sections):
    data = {"type": "RainSynthesisDataset", "dataroot_gt": str(photos), "tile_size": 32, "rain": {"preset": "small"}}
    root = tmp_path / "run"
    opt = {
        "name": "study",
        "model_type": model_type,
        "scale": 1,
        "num_gpu": 0,
        "dist": False,
        "rank": 0,
        "world_size": 1,
        "is_train": True,
        "datasets": {
            "train": {**data, "name": "rain", "phase": "train", "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
            "val": {**data, "name": "seen", "phase": "val"},
        },
        "network_g": {"type": "RestorationResNet", "num_feat": 4, "num_block": 1},
        "path": {
            "experiments_root": str(root),
            "models": str(root / "models"),
            "training_states": str(root / "training_states"),
            "visualization": str(root / "visualization"),
        },
        "train": {"total_iter": 10, "optim_g": ADAM, "pixel_opt": L1},
        "val": {"val_freq": 5, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    }
    for name, value in sections.items():
        opt[name] = {**opt[name], **value} if name in ("train", "val", "path") else value
    return opt


def build(opt):
    from basicsr.models import build_model

    return build_model(opt)


def batches(opt, phase="train"):
    from basicsr.data import build_dataset

    dataset = build_dataset(opt["datasets"][phase])
    return DataLoader(dataset, batch_size=2 if phase == "train" else 1)


def train(model, opt, iterations):
    batch = next(iter(batches(opt)))
    for iteration in range(1, iterations + 1):
        model.feed_data(batch)
        model.optimize_parameters(iteration)
    return batch


def validate(model, opt):
    loader = batches(opt, "val")
    model.validation(loader, 5, None, False)
    return model.results["seen"]


def test_noise_and_blur_report_removal_alone(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel")
    with_rain = validate(build(opt), opt)
    opt["val"]["rain_scores"] = False
    results = validate(build(opt), opt)
    assert set(results) == {"psnr", "removal"}
    assert set(with_rain) - set(results) == {
        "e_r", "e_b", "e_r_oracle", "removal_ratio", "residual", "skipped",
    }  # fmt: skip


# -- decoupled scores -------------------------------------------------------------------------------------------------


def test_validation_reports_decoupled_scores_equal_to_an_independent_computation(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel")
    model = build(opt)
    results = validate(model, opt)
    scores, removals = [], []
    for sample in batches(opt, "val"):
        with torch.no_grad():
            output = model.net_g(sample["lq"]).clamp(0, 1)[0].permute(1, 2, 0).double().numpy()
        rainy, clean = (sample[key][0].permute(1, 2, 0).double().numpy() for key in ("lq", "gt"))
        mask = sample["rain_mask"][0, 0].bool().numpy()
        scores.append(
            [
                np.sqrt(np.mean((output[mask] - rainy[mask]) ** 2)),
                np.sqrt(np.mean((output[~mask] - clean[~mask]) ** 2)),
                np.sqrt(np.mean((clean[mask] - rainy[mask]) ** 2)),
                np.sqrt(np.mean((output[mask] - clean[mask]) ** 2)),
            ]
        )
        removals.append(1 - np.sum((output - clean) * (rainy - clean)) / np.sum((rainy - clean) ** 2))
    wanted = np.mean(scores, axis=0)
    assert [results[name] for name in ("e_r", "e_b", "e_r_oracle", "residual")] == pytest.approx(wanted, rel=1e-4)
    assert results["removal"] == pytest.approx(np.mean(removals), rel=1e-4)
    assert results["removal_ratio"] == pytest.approx(np.mean([s[0] / s[2] for s in scores]), rel=1e-4)
    assert results["skipped"] == 0
    assert "psnr" in results


def test_identity_network_removes_nothing(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel")
    model = build(opt)
    with torch.no_grad():
        model.net_g.conv_last.weight.zero_()
        model.net_g.conv_last.bias.zero_()
    results = validate(model, opt)
    assert (results["e_r"], results["removal_ratio"]) == (0, 0)
    assert results["e_b"] < 10 / 255
    assert results["residual"] == results["e_r_oracle"] > 0


def test_scores_of_doing_nothing_and_of_perfection_where_all_rain_is_in_the_mask(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel")
    model = build(opt)
    clean = torch.full((1, 3, 16, 16), 0.25)
    rainy = clean.clone()
    rainy[..., :4] = 0.75
    model.feed_data({"lq": rainy, "gt": clean, "rain_mask": (rainy != clean)[:, :1].float()})
    model.output = rainy
    idle = model.evaluate()
    assert (idle["rain"]["e_r"], idle["rain"]["e_b"], idle["removal"]) == (0, 0, 0)
    model.output = clean
    perfect = model.evaluate()
    assert (perfect["rain"]["e_r"], perfect["rain"]["e_b"]) == (perfect["rain"]["e_r_oracle"], 0)
    assert perfect["rain"]["e_r_oracle"] == pytest.approx(0.5)
    assert (perfect["rain"]["removal_ratio"], perfect["removal"]) == (1, 1)


def test_images_without_background_are_skipped_and_counted(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel", val={"least_share": 0.5, "metrics": {}})
    opt["datasets"]["val"]["mask_threshold"] = 0.3
    results = validate(build(opt), opt)
    assert results["skipped"] == 3
    assert "e_r" not in results


def test_a_paired_set_without_mask_takes_the_threshold(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel", val={"mask_threshold": 0.2})
    model = build(opt)
    sample = next(iter(batches(opt, "val")))
    del sample["rain_mask"]
    model.feed_data(sample)
    model.test()
    rainy, clean = (sample[key][0].permute(1, 2, 0).numpy() for key in ("lq", "gt"))
    mask = np.abs(rainy - clean).max(-1) > 0.2
    output = model.output[0].permute(1, 2, 0).numpy()
    assert model.evaluate()["rain"]["e_r"] == pytest.approx(decoupled_errors(output, rainy, clean, mask).removal)


def test_results_are_written_for_the_sweep(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel")
    model = build(opt)
    results = validate(model, opt)
    written = json.loads((tmp_path / "run" / "study_results.json").read_text())
    assert written["seen"]["iteration"] == 5
    assert written["seen"]["images"] == 3
    assert written["seen"]["e_b"] == pytest.approx(results["e_b"])


def test_lower_is_better_for_errors(tmp_path, photos):
    opt = options(tmp_path, photos, "GeneralizationStudyModel")
    model = build(opt)
    validate(model, opt)
    best = model.best_metric_results["seen"]
    assert {name: best[name]["better"] for name in ("e_r", "e_b", "residual", "psnr")} == {
        "e_r": "higher",
        "e_b": "lower",
        "residual": "lower",
        "psnr": "higher",
    }


@pytest.mark.parametrize(
    "network",
    [
        {"type": "RestorationResNet", "num_feat": 8, "num_block": 1},
        {"type": "UNet", "num_feat": 4, "num_level": 3},
        {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1},  # stock
        {
            "type": "SwinIR", "upscale": 1, "img_size": 32, "window_size": 8, "depths": [2], "embed_dim": 12,
            "num_heads": [2], "mlp_ratio": 2, "img_range": 1.0, "upsampler": "", "resi_connection": "3conv",
        },  # stock
    ],
    ids=lambda network: network["type"],
)  # fmt: skip
def test_every_network_of_the_studies_trains_and_validates(tmp_path, photos, network):
    opt = options(tmp_path, photos, "GeneralizationStudyModel", network_g=network)
    check_options(opt)
    model = build(opt)
    train(model, opt, 2)
    assert np.isfinite(validate(model, opt)["e_b"])


# -- stage 1 ----------------------------------------------------------------------------------------------------------


def stage_1(tmp_path, photos, **train_options):
    return options(
        tmp_path,
        photos,
        "VQGANModel",
        network_g=VQGAN,
        network_d={"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4},
        train={"optim_d": ADAM, "net_d_start": 2, **train_options},
    )


def test_stage_1_learns_to_draw_and_the_discriminator_starts_late(tmp_path, photos):
    opt = stage_1(tmp_path, photos)
    model = build(opt)
    before = copy.deepcopy(model.net_d.state_dict())
    batch = train(model, opt, 2)
    assert set(model.logged) == {"l_pix", "l_codebook"}
    assert all(torch.equal(before[key], value) for key, value in model.net_d.state_dict().items())
    first = float(model.logged["l_pix"])
    for iteration in range(3, 40):
        model.feed_data(batch)
        model.optimize_parameters(iteration)
    assert set(model.logged) == {"l_pix", "l_g_gan", "l_codebook", "l_d_real", "l_d_fake"}
    assert float(model.logged["l_pix"]) < 0.8 * first
    assert not torch.equal(before["conv0.weight"], model.net_d.conv0.weight)
    assert all(parameter.requires_grad for parameter in model.net_d.parameters())


def test_the_generator_s_phase_leaves_no_gradient_in_the_discriminator(tmp_path, photos):
    opt = stage_1(tmp_path, photos, net_d_start=0)
    model = build(opt)
    model.feed_data(next(iter(batches(opt))))
    phases = model.phases(1)
    sum(next(phases).values()).backward()
    assert all(parameter.grad is None for parameter in model.net_d.parameters())
    assert all(parameter.grad is not None for parameter in model.net_g.parameters())
    generator = {name: parameter.grad.clone() for name, parameter in model.net_g.named_parameters()}
    sum(next(phases).values()).backward()
    assert any(parameter.grad is not None for parameter in model.net_d.parameters())
    assert all(torch.equal(generator[name], parameter.grad) for name, parameter in model.net_g.named_parameters())


def test_adaptive_weight_balances_the_gradients_at_the_last_layer(tmp_path, photos):
    from basicsr_plugins.models.vqgan_model import adaptive_weight

    layer = torch.tensor([1.0, -2.0], requires_grad=True)
    weight = adaptive_weight((3 * layer).sum(), (0.5 * layer).sum(), layer)
    assert float(weight) == pytest.approx(6, rel=1e-3)
    assert float(adaptive_weight((3 * layer).sum(), (0 * layer).sum(), layer)) == 1e4

    # through the model: |gradient of l_g_gan| = 0.8 |gradient of l_pix| at the decoder's last weight
    opt = stage_1(tmp_path, photos, net_d_start=0)
    model = build(opt)
    model.feed_data(next(iter(batches(opt))))
    losses = next(model.phases(1))
    norms = {
        name: torch.autograd.grad(losses[name], model.net_g.last_layer(), retain_graph=True)[0].norm()
        for name in ("l_pix", "l_g_gan")
    }
    assert float(norms["l_g_gan"] / norms["l_pix"]) == pytest.approx(0.8, rel=0.05)


def test_stage_1_validates_the_reconstruction_of_the_clean_image(tmp_path, photos):
    opt = stage_1(tmp_path, photos)
    model = build(opt)
    results = validate(model, opt)
    errors, codes = [], set()
    for sample in batches(opt, "val"):
        with torch.no_grad():
            result = model.net_g(sample["gt"], full=True)
        codes |= set(result.indices.unique().tolist())
        drawn = (result.image.clamp(0, 1) * 255).round() - (sample["gt"] * 255).round()
        errors.append(20 * np.log10(255 / np.sqrt(float((drawn.double() ** 2).mean()))))
    assert results["psnr"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert results["codes_used"] == len(codes)


def test_stage_1_refuses_another_network_or_range(tmp_path, photos):
    with pytest.raises(OptionError, match=r"network_g.type: this recipe needs a VQGAN"):
        check_options({**stage_1(tmp_path, photos), "network_g": {"type": "UNet"}})
    with pytest.raises(OptionError, match="unit_range: true"):
        check_options({**stage_1(tmp_path, photos), "network_g": {**VQGAN, "unit_range": False}})


# -- stage 2 ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def prior(tmp_path, photos):
    opt = stage_1(tmp_path, photos)
    model = build(opt)
    train(model, opt, 3)
    model.save(-1, -1)
    return tmp_path / "run" / "models" / "net_g_latest.pth"


def stage_2(tmp_path, photos, prior, **train_options):
    opt = options(
        tmp_path,
        photos,
        "ContentPriorModel",
        network_g=VQGAN,
        network_prior=VQGAN,
        path={"pretrain_network_prior": str(prior)},
        train=train_options,
    )
    for key in ("experiments_root", "models", "training_states", "visualization"):
        opt["path"][key] = opt["path"][key].replace("run", "run2")
    return opt


TRAINED = {
    "encoder": {"encoder", "quant_conv"},
    "encoder+decoder": {"encoder", "quant_conv", "post_quant_conv", "decoder"},
    "all": {"encoder", "quant_conv", "quantize", "post_quant_conv", "decoder"},
    "lora": {"encoder", "quant_conv"},
}


@pytest.mark.parametrize("policy", TRAINED)
def test_stage_2_starts_at_the_stage_1_reconstruction_and_trains_only_what_the_policy_names(
    tmp_path, photos, prior, policy
):
    opt = stage_2(tmp_path, photos, prior, finetune=policy)
    model = build(opt)
    sample = next(iter(batches(opt, "val")))
    stored = torch.load(prior, weights_only=True)["params"]
    reference = copy.deepcopy(model.net_prior)
    reference.load_state_dict(stored)
    with torch.no_grad():
        assert torch.equal(model.net_g(sample["gt"]), reference(sample["gt"]))

    model.feed_data(next(iter(batches(opt))))
    sum(next(model.phases(1)).values()).backward()
    for name, parameter in model.net_g.named_parameters():
        part = name.split(".")[0]
        if part not in TRAINED[policy] or (policy == "lora" and "lora_" not in name):
            assert parameter.grad is None, name
        elif policy != "lora" or "lora_B" in name:
            assert parameter.grad is not None, name
    assert all(parameter.grad is None for parameter in model.net_prior.parameters())

    train(model, opt, 3)
    model.save(-1, -1)
    written = torch.load(tmp_path / "run2" / "models" / "net_g_latest.pth", weights_only=True)["params"]
    assert set(written) == set(stored)  # plain VQGAN keys, adapter or not
    changed = {key.split(".")[0] for key in stored if not torch.equal(stored[key], written[key])}
    assert changed == TRAINED[policy]
    assert all(torch.equal(stored[key], value) for key, value in model.net_prior.state_dict().items())
    # what is written is what was validated
    reference.load_state_dict(written)
    with torch.no_grad():
        assert torch.allclose(model.net_g.encode(sample["lq"]), reference.encode(sample["lq"]), atol=1e-5)


def test_losses_equal_their_formulas(tmp_path, photos, prior):
    opt = stage_2(tmp_path, photos, prior, finetune="all", latent_weight=0.5, commitment_weight=0.25, code_weight=0.5)
    model = build(opt)
    batch = next(iter(batches(opt)))
    model.feed_data(batch)
    losses = {name: float(value.detach()) for name, value in next(model.phases(1)).items()}
    with torch.no_grad():
        clean, read = model.net_prior(batch["gt"], full=True), model.net_g(batch["lq"], full=True)
    codebook = model.net_g.quantize.embedding.weight.detach()
    assert losses["l_latent"] == pytest.approx(0.5 * float(((read.latent - clean.codes) ** 2).mean()), rel=1e-5)
    assert losses["l_commit"] == pytest.approx(0.25 * float(((read.latent - read.codes) ** 2).mean()), rel=1e-5)
    assert losses["l_codebook"] == pytest.approx(float(((read.latent - read.codes) ** 2).mean()), rel=1e-5)
    assert losses["l_pix"] == pytest.approx(float((read.image - batch["gt"]).abs().mean()), rel=1e-5)
    entropy = []
    for n, y, x in np.ndindex(*read.indices.shape):
        logits = -((codebook - read.latent[n, :, y, x]) ** 2).sum(1).double()
        entropy.append(float(torch.logsumexp(logits, 0) - logits[clean.indices[n, y, x]]))
    assert losses["l_codes"] == pytest.approx(0.5 * np.mean(entropy), rel=1e-4)


def test_code_targets_are_off_unless_asked_for(tmp_path, photos, prior):
    model = build(stage_2(tmp_path, photos, prior))
    model.feed_data(next(iter(batches(stage_2(tmp_path, photos, prior)))))
    assert set(next(model.phases(1))) == {"l_pix", "l_latent", "l_commit"}


def test_ceiling_is_reported_beside_every_metric(tmp_path, photos, prior):
    opt = stage_2(tmp_path, photos, prior)
    model = build(opt)
    train(model, opt, 2)
    results = validate(model, opt)
    assert {"psnr", "ceiling_psnr", "e_b", "ceiling_e_b", "e_r", "ceiling_e_r"} <= set(results)
    stored = torch.load(prior, weights_only=True)["params"]
    reference = copy.deepcopy(model.net_prior)
    reference.load_state_dict(stored)
    errors = []
    for sample in batches(opt, "val"):
        with torch.no_grad():
            output = reference(sample["gt"])[0].permute(1, 2, 0).numpy()
        rainy, clean = (sample[key][0].permute(1, 2, 0).numpy() for key in ("lq", "gt"))
        errors.append(decoupled_errors(output, rainy, clean, sample["rain_mask"][0, 0].numpy()).background)
    assert results["ceiling_e_b"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert results["e_b"] != results["ceiling_e_b"]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_an_adapter_survives_a_resume(tmp_path, photos, prior, ema):
    opt = stage_2(tmp_path, photos, prior, finetune="lora", ema_decay=ema)
    model = build(opt)
    train(model, opt, 2)
    model.save(0, 2)
    state = torch.load(tmp_path / "run2" / "training_states" / "2.state", weights_only=True)
    again = stage_2(tmp_path, photos, prior, finetune="lora", ema_decay=ema)
    again["path"]["pretrain_network_g"] = str(tmp_path / "run2" / "models" / "net_g_2.pth")  # as check_resume does
    resumed = build(again)
    resumed.resume_training(state)
    for name, network in (("net_g", model.net_g), ("net_g_ema", getattr(model, "net_g_ema", None))):
        if network is not None:
            other = getattr(resumed, name).state_dict()
            assert all(torch.equal(other[key], value) for key, value in network.state_dict().items()), name


def test_stage_2_needs_its_prior(tmp_path, photos, prior):
    opt = stage_2(tmp_path, photos, prior)
    check_options(opt)
    with pytest.raises(OptionError, match=r"path.pretrain_network_prior: this option is required"):
        check_options({**opt, "path": {**opt["path"], "pretrain_network_prior": None}})
    with pytest.raises(OptionError, match="sizes of network_g"):
        check_options({**opt, "network_prior": {**VQGAN, "n_embed": 8}})
    with pytest.raises(OptionError, match="'encoder', 'encoder\\+decoder', 'all', 'lora'"):
        check_options({**opt, "train": {**opt["train"], "finetune": "decoder"}})
    with pytest.raises(CheckpointError, match="no file"):
        check_options({**opt, "path": {**opt["path"], "pretrain_network_prior": "nowhere.pth"}})


def test_a_public_file_with_loss_networks_loads_strictly(tmp_path, photos, prior):
    stored = torch.load(prior, weights_only=True)["params"]
    public = tmp_path / "last.ckpt"
    torch.save({"state_dict": {**stored, "loss.perceptual_loss.net.weight": torch.zeros(2)}}, public)
    model = build(stage_2(tmp_path, photos, public))
    assert all(torch.equal(stored[key], value) for key, value in model.net_prior.state_dict().items())


def test_stage_2_is_tested_from_its_files(tmp_path, photos, prior):
    opt = stage_2(tmp_path, photos, prior, finetune="lora")
    model = build(opt)
    train(model, opt, 3)
    model.save(-1, -1)
    wanted = validate(model, opt)
    test = {key: value for key, value in opt.items() if key != "train"}
    paths = {
        "pretrain_network_g": str(tmp_path / "run2" / "models" / "net_g_latest.pth"),
        "pretrain_network_prior": str(prior),
        "results_root": str(tmp_path / "results"),
        "visualization": str(tmp_path / "results"),
    }
    results = validate(build({**test, "is_train": False, "path": paths}), opt)
    assert results == pytest.approx(wanted, abs=1e-4)
    assert "seen" in json.loads((tmp_path / "results" / "study_results.json").read_text())


@pytest.mark.parametrize("stage", [1, 2])
def test_both_stages_train_in_bf16(tmp_path, photos, prior, stage):
    if stage == 1:
        opt = stage_1(tmp_path, photos, precision="bf16", net_d_start=0)
    else:
        opt = stage_2(tmp_path, photos, prior, precision="bf16", code_weight=0.5)
    model = build(opt)
    train(model, opt, 2)
    assert all(torch.isfinite(value) for value in model.logged.values())
    assert all(torch.isfinite(parameter).all() for parameter in model.net_g.parameters())
