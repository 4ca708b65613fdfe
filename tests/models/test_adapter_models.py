"""ABAIR's three recipes, in process: what trains, what is saved, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import basicsr_plugins
from basicsr_plugins.adapters import find_adapters, fingerprint, read_folder
from basicsr_plugins.core.errors import CheckpointError, DataError, OptionError
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.launch.checking import check_options

peft = pytest.importorskip("peft")

NAFNET = {"type": "NAFNet", "width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1, "img_range": 1.0}
ABAIR = {"type": "ABAIRNet", "preset": "tiny"}
PSNR = {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


class Degraded(Dataset):
    """Four images, each with label, map and clean image."""

    def __init__(self, labels=(0, 1, 0, 1), size=16):
        self.opt, self.labels, self.size = {"name": "val"}, labels, size

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        gt, label = torch.rand(3, self.size, self.size + 4, generator=generator), self.labels[index]
        lq = gt * 0.5 if label == 0 else (gt + 0.2 * torch.randn(gt.shape, generator=generator)).clamp(0, 1)
        maps = torch.full(gt.shape[1:], label)
        maps[: self.size // 2] = 0
        paths = {"lq_path": f"image_{index}.png", "gt_path": f"image_{index}.png"}
        return {"lq": lq, "gt": gt, "degradation": label, "degradation_map": maps, **paths}


def batch(count=4, **options):
    return next(iter(DataLoader(Degraded(**options), batch_size=count)))


def options(tmp_path, model, network=None, **sections):
    train = sections.pop("train", {})
    opt = {
        "name": "test", "model_type": model, "scale": 1, "num_gpu": 0, "dist": False, "rank": 0, "world_size": 1,
        "is_train": True, "manual_seed": 0, "network_g": dict(network or NAFNET),
        "path": {
            "models": str(tmp_path / model / "models"), "training_states": str(tmp_path / model / "states"),
            "visualization": str(tmp_path / model / "visualization"), **sections.pop("path", {}),
        },
        "datasets": {"train": {"batch_size_per_gpu": 4, "type": "SingleImageDataset"}},
        "train": {
            "total_iter": 10, "optim_g": {"type": "SGD", "lr": 0.1}, "pixel_opt": {"type": "L1Loss"}, **train,
        },
        "val": copy.deepcopy(PSNR), **sections,
    }  # fmt: skip
    return opt


def build(opt):
    torch.manual_seed(0)
    return lookup("model", opt["model_type"])(copy.deepcopy(opt))


def run(model, iterations=2, first=1, **options):
    for iteration in range(first, first + iterations):
        model.feed_data(batch(**options))
        model.optimize_parameters(iteration)
    return model.get_current_log()


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def base(tmp_path):
    """A checkpoint of the frozen network."""
    torch.manual_seed(3)
    net = lookup("arch", "NAFNet")(**{key: value for key, value in NAFNET.items() if key != "type"})
    for parameter in net.parameters():  # NAFNet's residual branches start at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    path = tmp_path / "net_g_base.pth"
    torch.save({"params": net.state_dict()}, path)
    return path


def adapter_options(tmp_path, base, name="dark", peft_opt=None, **sections):
    peft_opt = peft_opt or {"r": 2}
    path = {"pretrain_network_g": str(base), **sections.pop("path", {})}
    return options(tmp_path / name, "AdapterModel", path=path, adapter={"name": name, "peft_opt": peft_opt}, **sections)


@pytest.fixture
def adapters(tmp_path, base):
    """Two trained adapters of ``base``, as AdapterModel saves them."""
    folders = {}
    for seed, name in enumerate(("dark", "noise")):
        model = build(adapter_options(tmp_path, base, name))
        torch.manual_seed(10 + seed)
        for parameter in model.adapter.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        model.save(0, -1)
        folders[name] = str(tmp_path / name / "AdapterModel" / "models" / "adapter_latest")
    return folders


def blend_options(tmp_path, base, adapters, blend=None, path=None, classes=None, **sections):
    estimator = {"type": "DegradationEstimator", "preset": "tiny", **({"classes": classes} if classes else {})}
    train = {"pixel_opt": None, "optim_e": {"type": "SGD", "lr": 0.1}, **sections.pop("train", {})}
    return options(
        tmp_path, "AdapterBlendModel", network_e=estimator, blend={"adapters": adapters, **(blend or {})}, train=train,
        path={"pretrain_network_g": str(base), **(path or {})}, **sections,
    )  # fmt: skip


# -- phase I --------------------------------------------------------------------------------------------------------


def pretrain_options(tmp_path, network=None, **train):
    head = {"type": "SegmentationHead", "num_classes": 2, "width": 4}
    train = {"optim_s": {"type": "SGD", "lr": 0.1}, **train}
    return options(tmp_path, "ABAIRPretrainModel", network, network_s=head, train=train)


@pytest.mark.parametrize("network", [ABAIR, NAFNET, EDSR], ids=lambda network: network["type"])
def test_phase_one_trains_any_network_and_its_head(tmp_path, network):
    layer = {} if network is not EDSR else {"segmentation_layer": "conv_after_body"}
    if network is NAFNET:
        layer = {"segmentation_layer": "decoders.0"}
    model = build(pretrain_options(tmp_path, network, **layer))
    before = {name: state(net) for name, net in model.networks.items()}
    log = run(model)
    assert set(log) == {"l_pix", "l_seg"}
    assert not any(same(before[name], state(net)) for name, net in model.networks.items())
    model.save(0, -1)
    exported = torch.load(tmp_path / "ABAIRPretrainModel/models/net_g_latest.pth", weights_only=True)["params"]
    assert set(exported) == set(before["g"]), "nothing of the head is exported"


def test_the_segmentation_loss_is_pixelwise_cross_entropy_and_reaches_the_network(tmp_path):
    model = build(pretrain_options(tmp_path, ABAIR, segmentation_opt={"type": "CrossEntropyLoss", "loss_weight": 0.5}))
    data = batch()
    model.feed_data(data)
    losses = next(model.phases(1))
    feature = model.tap(data["lq"])[0]
    expected = 0.5 * torch.nn.functional.cross_entropy(model.net_s(feature, (16, 20)), data["degradation_map"])
    torch.testing.assert_close(losses["l_seg"], expected)
    losses["l_seg"].backward()
    assert model.net_g.patch_embed.proj.weight.grad.abs().sum() > 0


def test_row_without_segmentation_has_no_head(tmp_path):
    model = build(pretrain_options(tmp_path, segmentation_opt=None))
    assert set(model.networks) == {"g"}
    assert set(run(model)) == {"l_pix"}


def test_validation_reports_pixel_accuracy_and_saves_maps(tmp_path):
    model = build(pretrain_options(tmp_path, ABAIR, save_maps=3))
    model.nondist_validation(DataLoader(Degraded()), 5, None, False)
    metrics = model.results["val"]
    assert {"psnr", "pixel_accuracy", "mean_iou", "pixel_accuracy_0", "pixel_accuracy_1"} <= set(metrics)
    pictures = sorted((tmp_path / "ABAIRPretrainModel/visualization").rglob("*_5_map.png"))
    assert len(pictures) == 3
    import cv2

    assert cv2.imread(str(pictures[0])).shape == (16, 60, 3), "input, prediction and truth side by side"
    maps = cv2.imread(str(pictures[1]))[:, 40:]
    assert len(np.unique(maps.reshape(-1, 3), axis=0)) == 2, "the second image has two regions"


def test_maps_are_judged_by_the_averaged_networks_and_summed_over_the_images(tmp_path):
    model = build(pretrain_options(tmp_path, ABAIR, ema_decay=0.9))
    run(model, 1)
    for raw in (model.net_g, model.net_s):
        next(raw.children()).register_forward_pre_hook(lambda *_: pytest.fail("this one is not averaged"))
    model.nondist_validation(DataLoader(Degraded()), 1, None, False)
    records = [{"pixels": [[1, 0], [0, 1]]}, {"pixels": [[0, 2], [0, 0]]}]
    metrics, _ = model.aggregate(records, "val")
    assert metrics["pixel_accuracy"] == 0.5
    assert metrics["pixel_accuracy_0"] == pytest.approx(1 / 3)
    assert metrics["mean_iou"] == pytest.approx((1 / 3 + 1 / 3) / 2)


def test_a_batch_without_a_map_is_refused(tmp_path):
    model = build(pretrain_options(tmp_path, ABAIR))
    data = batch()
    del data["degradation_map"]
    model.feed_data(data)
    with pytest.raises(DataError, match=r"no degradation_map.*return_map: true"):
        model.optimize_parameters(1)


# -- phase II -------------------------------------------------------------------------------------------------------


def test_only_the_adapter_trains(tmp_path, base):
    model = build(adapter_options(tmp_path, base, train={"optim_g": {"type": "Adam", "lr": 0.05}}))
    data, frozen = batch(), {n: p.clone() for n, p in model.net_g.named_parameters() if ".lora_" not in n}
    model.feed_data(data)
    first = float(next(model.phases(1))["l_pix"].detach())
    log = run(model, 20)
    assert log["l_pix"] < first
    assert all(torch.equal(parameter, dict(model.net_g.named_parameters())[n]) for n, parameter in frozen.items())


def test_saved_folder_is_peft_and_merged_checkpoint_is_plain(tmp_path, base):
    opt = adapter_options(tmp_path, base)
    opt["adapter"]["merge"] = True
    model = build(opt)
    run(model, 3)
    model.save(0, 3)
    model.save(0, -1)
    models = Path(opt["path"]["models"])
    assert {path.name for path in models.iterdir()} == {
        "adapter_3", "adapter_latest", "net_g_3.pth", "net_g_latest.pth",
    }  # fmt: skip
    net = build(options(tmp_path, "RestorationModel", path={"pretrain_network_g": str(base)})).net_g
    data = batch()
    expected = model.net_g(data["lq"])
    plain = peft.PeftModel.from_pretrained(copy.deepcopy(net), str(models / "adapter_latest"))
    torch.testing.assert_close(plain(data["lq"]), expected)
    stock = lookup("model", "SRModel")(
        {
            **options(tmp_path, "SRModel", path={"pretrain_network_g": str(models / "net_g_latest.pth")}),
            "is_train": False,
        }
    )
    torch.testing.assert_close(stock.net_g(data["lq"]), expected, rtol=1e-4, atol=1e-5)
    folder = read_folder(models / "adapter_latest")
    assert folder.name == "dark"
    assert folder.base == fingerprint(net)
    assert folder.provenance["base"]["path"] == str(base)


def test_averaged_adapter_is_what_is_saved_and_tested(tmp_path, base):
    opt = adapter_options(tmp_path, base, train={"ema_decay": 0.9, "optim_g": {"type": "SGD", "lr": 1.0}})
    opt["adapter"]["merge"] = True
    model = build(opt)
    run(model, 5)
    model.save(0, -1)
    saved = read_folder(tmp_path / "dark/AdapterModel/models/adapter_latest").tensors()
    average = model.averages["g"].state_dict()
    assert all(torch.equal(saved[key.replace(".default", "")], average[key]) for key in average if ".lora_" in key)
    raw = model.net_g.state_dict()
    assert not any(torch.equal(average[key], raw[key]) for key in raw if ".lora_B." in key)
    evaluated = model.evaluation_network().state_dict()
    assert all(torch.equal(evaluated[key], raw[key]) for key in raw if ".lora_" not in key), "the base is exact"
    merged = str(tmp_path / "dark/AdapterModel/models/net_g_latest.pth")
    plain = build(options(tmp_path, "RestorationModel", path={"pretrain_network_g": merged})).net_g
    image = batch()["lq"]
    with torch.no_grad():
        torch.testing.assert_close(plain(image), model.evaluation_network()(image), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(plain(image), model.net_g(image), rtol=1e-5, atol=1e-6)


def test_resuming_goes_on_exactly(tmp_path, base):
    opt = adapter_options(tmp_path, base, train={"ema_decay": 0.5, "optim_g": {"type": "Adam", "lr": 0.05}})
    whole = build(opt)
    run(whole, 2)
    whole.save(0, 2)
    run(whole, 2, first=3)
    resumed = copy.deepcopy(opt)
    states = Path(opt["path"]["training_states"])
    resumed["path"].update(  # what stock's check_resume does to the paths
        resume_state=str(states / "2.state"), pretrain_network_g=str(Path(opt["path"]["models"]) / "net_g_2.pth")
    )
    model = build(resumed)
    model.resume_training(torch.load(states / "2.state", weights_only=True))
    run(model, 2, first=3)
    assert same(state(model.net_g), state(whole.net_g))
    assert same(
        {k: v for k, v in state(model.averages["g"]).items() if ".lora_" in k},
        {k: v for k, v in state(whole.averages["g"]).items() if ".lora_" in k},
    )


def test_a_saved_adapter_is_tested_and_trained_further(tmp_path, base, adapters):
    opt = adapter_options(tmp_path, base)
    opt["adapter"]["folder"] = adapters["noise"]
    tested = build({**opt, "is_train": False})
    tested.feed_data(batch(1))
    tested.test()
    blended = build({**blend_options(tmp_path, base, adapters, {"mode": "noise"}), "is_train": False})
    blended.feed_data(batch(1))
    blended.test()
    torch.testing.assert_close(tested.output, blended.output, rtol=1e-4, atol=1e-5)
    further = build(opt)
    before = state(further.net_g)
    run(further, 1)
    changed = {name for name, tensor in state(further.net_g).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)


def test_only_the_newest_adapters_are_kept(tmp_path, base):
    model = build(adapter_options(tmp_path, base, train={"keep_last": 2}))
    for iteration in (9, 10, 11):
        model.save(0, iteration)
    model.save(0, -1)
    names = {path.name for path in (tmp_path / "dark/AdapterModel/models").iterdir()}
    assert names == {"adapter_10", "adapter_11", "adapter_latest"}


def test_batchnorm_of_the_base_stands_still(tmp_path):
    torch.manual_seed(0)
    model = build(options(tmp_path, "RestorationModel", EDSR))
    model.net_g.conv_after_body = torch.nn.Sequential(model.net_g.conv_after_body, torch.nn.BatchNorm2d(8))
    from basicsr_plugins.models.parts.frozen_base import FrozenBase

    before = state(model.net_g)
    model.net_g.train()
    FrozenBase.hold_statistics(model.net_g)
    model.net_g(torch.rand(2, 3, 8, 8))
    assert same(before, state(model.net_g))


# -- phase III ------------------------------------------------------------------------------------------------------


def test_only_the_estimator_trains_and_only_it_is_saved(tmp_path, base, adapters):
    files = [base, *(Path(folder) / "adapter_model.safetensors" for folder in adapters.values())]
    before = [path.read_bytes() for path in files]
    model = build(blend_options(tmp_path, base, adapters, train={"pixel_opt": {"type": "L1Loss"}}))
    frozen, estimator = state(model.net_g), state(model.net_e)
    log = run(model)
    assert set(log) == {"l_est", "l_pix"}
    assert same(frozen, state(model.net_g))
    assert not same(estimator, state(model.net_e))
    assert all(parameter.grad is None for parameter in model.net_g.parameters())
    model.save(0, -1)
    assert [path.name for path in Path(model.opt["path"]["models"]).iterdir()] == ["net_e_latest.pth"]
    assert [path.read_bytes() for path in files] == before


def test_the_restoration_loss_alone_reaches_the_estimator(tmp_path, base, adapters):
    opt = blend_options(tmp_path, base, adapters, train={"estimator_opt": None, "pixel_opt": {"type": "L1Loss"}})
    model = build(opt)
    model.feed_data(batch())
    losses = next(model.phases(1))
    assert set(losses) == {"l_pix"}
    losses["l_pix"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.net_e.parameters())


def test_labels_are_soft_for_mixtures_and_regions(tmp_path, base, adapters):
    model = build(blend_options(tmp_path, base, adapters, {"labels": ["noise", ["dark", "noise"]]}))
    data = batch(2, labels=(0, 1))
    model.feed_data({key: value for key, value in data.items() if key != "degradation_map"})
    assert model._shares().tolist() == [[0, 1], [0.5, 0.5]]  # columns: dark, noise
    model.feed_data(data)  # the upper half of the second image is label 0
    assert model._shares().tolist() == [[0, 1], [0.25, 0.75]]
    expected = torch.nn.functional.cross_entropy(model.net_e(data["lq"]), torch.tensor([[0, 1], [0.25, 0.75]]))
    torch.testing.assert_close(next(model.phases(1))["l_est"], expected)


@pytest.mark.parametrize("mode", ["soft", "one_hot", "oracle", "sum", "average", "none", "noise"])
def test_each_mode_restores_as_it_says(tmp_path, base, adapters, mode):
    opt = blend_options(tmp_path, base, adapters, {"mode": mode})
    model = build({**opt, "is_train": False})
    data = batch(1, labels=(1,))
    del data["degradation_map"]
    model.feed_data(data)
    model.test()
    p = model.net_e(data["lq"]).softmax(1).detach()
    weights = {
        "soft": p, "one_hot": torch.eye(2)[p.argmax(1)], "oracle": torch.tensor([[0.0, 1]]),
        "sum": torch.ones(1, 2), "average": torch.full((1, 2), 0.5), "none": torch.zeros(1, 2),
        "noise": torch.tensor([[0.0, 1]]),
    }[mode]  # fmt: skip
    with torch.no_grad():
        expected = model.net_g.merged(weights[0])(data["lq"])
    torch.testing.assert_close(model.output, expected, rtol=1e-4, atol=1e-5)


def test_validation_tells_accuracy_and_mean_weights(tmp_path, base, adapters):
    model = build(blend_options(tmp_path, base, adapters))
    model.nondist_validation(DataLoader(Degraded()), 1, None, False)
    assert {"psnr", "accuracy"} <= set(model.results["val"])
    records = [{"degradation": 0, "prediction": 0, "weights": [0.9, 0.1]}, {"degradation": 1, "prediction": 0}]
    metrics, text = model.aggregate(records, "val")
    assert metrics["accuracy"] == 0.5
    assert "mean weights, dark: dark 0.90, noise 0.10" in text


def test_mixtures_are_left_out_of_the_accuracy(tmp_path, base, adapters):
    model = build(blend_options(tmp_path, base, adapters, {"labels": ["noise", ["dark", "noise"]]}))
    records = [{"degradation": 0, "prediction": 1}, {"degradation": 1, "prediction": 0}]
    assert model.aggregate(records, "val")[0] == {"accuracy": 1.0}


def test_few_weights_and_unsure_images(tmp_path, base, adapters):
    images = batch(3)["lq"]
    few = build({**blend_options(tmp_path, base, adapters, {"top_k": 1}), "is_train": False}).weigh(images)[0]
    assert (few > 0).sum(dim=1).tolist() == [1] * 3
    torch.testing.assert_close(few.sum(dim=1), torch.ones(3))
    unsure = build({**blend_options(tmp_path, base, adapters, {"threshold": 1.0}), "is_train": False})
    assert not unsure.weigh(images)[0].any()


def test_an_image_that_is_clean_keeps_its_pixels(tmp_path, base, adapters):
    classes = ["dark", "noise", "clean"]
    for keeps in (True, False):
        opt = blend_options(tmp_path, base, adapters, {"keep_clean": keeps}, classes=classes)
        model = build({**opt, "is_train": False})
        model.net_e.head.weight.data.zero_()
        model.net_e.head.bias.data.copy_(torch.tensor([0.0, 0.0, 30.0]))
        model.feed_data(batch(4))
        model.test()
        assert torch.allclose(model.output, model.lq, atol=1e-5) == keeps
        model.net_e.head.bias.data.copy_(torch.tensor([30.0, 0.0, 0.0]))
        model.test()
        assert torch.equal(model.output, model.net_g(model.lq, torch.eye(2)[:1].expand(4, 2))) or not keeps


def test_the_averaged_estimator_is_what_weighs_and_is_judged(tmp_path, base, adapters):
    model = build(blend_options(tmp_path, base, adapters, train={"ema_decay": 0.9}))
    run(model, 1)
    next(model.net_e.children()).register_forward_pre_hook(lambda *_: pytest.fail("this one is not averaged"))
    model.nondist_validation(DataLoader(Degraded()), 1, None, False)
    assert "accuracy" in model.results["val"]


def test_tiles_share_the_weights_of_the_whole_image(tmp_path, base, adapters):
    opt = {**blend_options(tmp_path, base, adapters), "is_train": False}
    opt["val"] = {"tile": 8, "tile_overlap": 2}
    model = build(opt)
    data, seen = batch(1), []
    model.feed_data(data)
    model.net_g.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    model.test()
    assert len(seen) > 2
    assert all(torch.equal(weights, model.weights) for weights in seen)


def test_spatial_blending_weighs_each_tile(tmp_path, base, adapters):
    opt = blend_options(tmp_path, base, adapters, {"spatial": 8}, train={"pixel_opt": {"type": "L1Loss"}})
    model = build(opt)
    assert set(run(model, 1)) == {"l_est", "l_est_map", "l_pix"}
    model.feed_data(batch())
    loss = next(model.phases(1))["l_pix"]
    output = model.net_g(model.lq, model.net_e.maps(model.lq, 8).softmax(1))
    torch.testing.assert_close(loss, (output - model.gt).abs().mean())
    model.feed_data(batch(1))
    model.test()
    assert model.weights.shape == (1, 2, 2, 2)
    with torch.no_grad():
        expected = model.net_g(model.lq, model.net_e.maps(model.lq, 8).softmax(1))
    torch.testing.assert_close(model.output, expected)


def test_a_degradation_added_later_keeps_what_the_estimator_knows(tmp_path, base, adapters):
    first = build(blend_options(tmp_path / "first", base, {"dark": adapters["dark"]}))
    run(first, labels=(0, 0, 0, 0))
    first.save(0, -1)
    path = {"pretrain_network_e": str(tmp_path / "first/AdapterBlendModel/models/net_e_latest.pth")}
    grown = {"add": {"noise": adapters["noise"]}}
    model = build(blend_options(tmp_path, base, {"dark": adapters["dark"]}, grown, path))
    assert model.net_e.classes == ["dark", "noise"]
    assert torch.equal(model.net_e.head.weight[:1], first.net_e.head.weight)
    old = {n: t for n, t in state(model.net_e).items() if not n.startswith(("head", "class"))}
    assert all(torch.equal(tensor, first.net_e.state_dict()[name]) for name, tensor in old.items())
    run(model)


def test_blending_resumes_on_the_recorded_base(tmp_path, base, adapters):
    opt = blend_options(tmp_path, base, adapters)
    model = build(opt)
    run(model)
    model.save(0, 2)
    opt["path"].update(
        resume_state=str(Path(opt["path"]["training_states"]) / "2.state"),
        pretrain_network_g=str(Path(opt["path"]["models"]) / "net_g_2.pth"),
        pretrain_network_e=str(Path(opt["path"]["models"]) / "net_e_2.pth"),
    )
    resumed = build(opt)
    assert same(state(resumed.net_e), state(model.net_e))
    assert same(state(resumed.net_g), state(model.net_g))


# -- bad input ------------------------------------------------------------------------------------------------------


def check(opt):
    opt = copy.deepcopy(opt)
    opt["datasets"] = {}
    check_options(opt)


def test_good_options_pass(tmp_path, base, adapters):
    check(pretrain_options(tmp_path, ABAIR))
    check(adapter_options(tmp_path, base))
    check(blend_options(tmp_path, base, adapters, {"mode": "noise"}))


def test_wrong_adapter_options_are_found_before_training(tmp_path, base):
    with pytest.raises(OptionError, match=r"adapter.peft_opt|peft_opt.lora_alhpa: .*'lora_alpha'"):
        check(adapter_options(tmp_path, base, peft_opt={"lora_alhpa": 1}))
    with pytest.raises(OptionError, match="peft_opt.target: 'nothing' matches no layer of NAFNet"):
        check(adapter_options(tmp_path, base, peft_opt={"target": "nothing"}))
    opt = adapter_options(tmp_path, base)
    opt["adapter"]["nmae"] = opt["adapter"].pop("name")
    with pytest.raises(OptionError, match=r"adapter.nmae: .*'name'"):
        check(opt)
    opt = adapter_options(tmp_path, base)
    del opt["path"]["pretrain_network_g"]
    with pytest.raises(OptionError, match="path.pretrain_network_g: this option is required"):
        check(opt)
    with pytest.raises(OptionError, match="adapter.folder: this option is required in a test"):
        check({**adapter_options(tmp_path, base), "is_train": False})


def test_adapters_of_another_base_are_refused_with_both_named(tmp_path, base, adapters):
    other = tmp_path / "other.pth"
    weights = torch.load(base, weights_only=True)["params"]
    torch.save({"params": {name: tensor + 1 for name, tensor in weights.items()}}, other)
    old, new = fingerprint(weights), fingerprint(torch.load(other, weights_only=True)["params"])
    text = f"'dark'.*trained on NAFNet {old} .*net_g_base.pth.*other.pth .params. {new}"
    with pytest.raises(CheckpointError, match=text):
        check(blend_options(tmp_path, other, adapters))
    with pytest.raises(CheckpointError, match=f"{old}.*{new}"):
        build(blend_options(tmp_path, other, adapters))


def test_missing_and_doubled_adapters_are_refused(tmp_path, base, adapters):
    with pytest.raises(CheckpointError, match=r"blend.adapters: .*snow: does not exist"):
        check(blend_options(tmp_path, base, {**adapters, "snow": str(tmp_path / "snow")}))
    with pytest.raises(OptionError, match=r"blend: adapters: there are two adapters called 'dark'"):
        check(blend_options(tmp_path, base, adapters, {"add": {"dark": adapters["dark"]}}))
    with pytest.raises(OptionError, match=r"blend.mode: unknown blend mode or adapter 'sotf'. Did you mean 'soft'"):
        check(blend_options(tmp_path, base, adapters, {"mode": "sotf"}))


def test_labels_without_adapter_are_refused(tmp_path, base, adapters):
    with pytest.raises(OptionError, match=r"blend.labels\[1\]: unknown degradation 'fog'.*dark, noise"):
        check(blend_options(tmp_path, base, adapters, {"labels": ["dark", "fog"]}))
    opt = blend_options(tmp_path, base, adapters)
    opt["datasets"] = {"train": {**photographs(tmp_path), "degradations": ["Rain", "Haze", "GaussianNoise"]}}
    with pytest.raises(
        OptionError, match=r"datasets.train returns labels up to 2, but blend.labels names 2: dark, noise"
    ):
        check_options(opt)
    model = build(blend_options(tmp_path, base, adapters))
    data = batch(2, labels=(0, 5))
    del data["degradation_map"]
    with pytest.raises(DataError, match=r"label 5, but blend.labels names 2: dark, noise"):
        model.feed_data(data)


def photographs(tmp_path):
    import cv2

    folder = tmp_path / "clean"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((32, 32, 3), np.uint8))
    return {"name": "x", "type": "DegradationDataset", "dataroot_gt": str(folder), "gt_size": 16}


def test_an_estimator_of_other_classes_is_refused(tmp_path, base, adapters):
    model = build(blend_options(tmp_path, base, adapters))
    model.save(0, -1)
    path = {"pretrain_network_e": str(tmp_path / "AdapterBlendModel/models/net_e_latest.pth")}
    renamed = {"dark": adapters["dark"], "snow": adapters["noise"]}
    text = r"net_e_latest.pth was trained for dark, noise; the adapters here are dark, snow"
    with pytest.raises(CheckpointError, match=text):
        check(blend_options(tmp_path, base, renamed, path=path))
    swapped = dict(reversed(adapters.items()))  # another order is the same estimator
    twin = build(blend_options(tmp_path, base, swapped, path=path))
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(twin.net_e(x).flip(1), model.net_e(x))
    with pytest.raises(
        OptionError, match=r"network_e.classes: the estimator knows dark, fog; the adapters are dark, noise"
    ):
        check(blend_options(tmp_path, base, adapters, classes=["dark", "fog"]))


def test_a_test_with_an_untrained_estimator_is_refused(tmp_path, base, adapters):
    with pytest.raises(
        OptionError, match=r"path.pretrain_network_e: this option is required in a test with blend.mode soft"
    ):
        check({**blend_options(tmp_path, base, adapters), "is_train": False})
    check({**blend_options(tmp_path, base, adapters, {"mode": "oracle"}), "is_train": False})


def test_phase_one_is_tested_with_and_without_its_head(tmp_path):
    model = build(pretrain_options(tmp_path, ABAIR))
    model.save(0, -1)
    models = tmp_path / "ABAIRPretrainModel/models"
    for head in ({"pretrain_network_s": str(models / "net_s_latest.pth")}, {}):
        opt = {**pretrain_options(tmp_path, ABAIR), "is_train": False}
        opt["path"].update(pretrain_network_g=str(models / "net_g_latest.pth"), **head)
        tested = build(opt)
        tested.nondist_validation(DataLoader(Degraded()), "test", None, False)
        assert ("pixel_accuracy" in tested.results["val"]) == bool(head)


def test_adapters_are_found_by_folder_too(tmp_path, base, adapters):
    for name, folder in adapters.items():
        Path(folder).rename(tmp_path / f"all_{name}")
    root = tmp_path / "all"
    root.mkdir()
    for name in adapters:
        (tmp_path / f"all_{name}").rename(root / name)
    assert list(find_adapters(root)) == ["dark", "noise"]
    check(blend_options(tmp_path, base, str(root)))


def test_blending_pads_to_the_windows_of_a_stock_network(tmp_path):
    swin = {"type": "SwinIR", "img_size": 16, "window_size": 8, "depths": [1], "embed_dim": 8, "num_heads": [2],
            "upscale": 1, "upsampler": ""}  # fmt: skip
    net = lookup("arch", "SwinIR")(**{key: value for key, value in swin.items() if key != "type"})
    torch.save({"params": net.state_dict()}, tmp_path / "swin.pth")
    peft_opt = {"r": 2, "target": r".*\.qkv"}
    build(adapter_options(tmp_path, tmp_path / "swin.pth", peft_opt=peft_opt, network_g=swin)).save(0, -1)
    folders = {"dark": str(tmp_path / "dark" / "AdapterModel" / "models" / "adapter_latest")}
    model = build(blend_options(tmp_path, tmp_path / "swin.pth", folders, network_g=swin))
    model.feed_data({"lq": torch.rand(1, 3, 20, 28), "gt": torch.rand(1, 3, 20, 28), "degradation": torch.tensor([0])})
    model.test()
    assert model.output.shape == (1, 3, 20, 28)


@pytest.mark.parametrize(
    ("mode", "option"),
    [("sum", {"top_k": 1}), ("average", {"top_k": 1}), ("oracle", {"top_k": 1}), ("one_hot", {"top_k": 1}),
     ("none", {"top_k": 1}), ("noise", {"top_k": 1}), ("sum", {"threshold": 0.5}), ("average", {"threshold": 0.5}),
     ("oracle", {"threshold": 0.5}), ("sum", {"spatial": 8}), ("average", {"spatial": 8}), ("none", {"spatial": 8})],
)  # fmt: skip
def test_what_a_blend_mode_does_not_look_at_is_refused(tmp_path, base, adapters, mode, option):
    check(blend_options(tmp_path, base, adapters, {"mode": mode}))
    with pytest.raises(OptionError, match=rf"^blend\.{next(iter(option))}: blend\.mode {mode} does not use it"):
        check(blend_options(tmp_path, base, adapters, {"mode": mode, **option}))
