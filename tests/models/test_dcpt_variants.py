"""DCPT's switches: what is trained, on which image, with which masks and labels; and guided transfer."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import basicsr_plugins
from basicsr_plugins.checkpoints import save
from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.registration import lookup
from basicsr_plugins.features import FeatureTap
from basicsr_plugins.launch.checking import check_options
from basicsr_plugins.losses.binary_cross_entropy_loss import BinaryCrossEntropyLoss
from basicsr_plugins.metrics.confusion_picture import confusion_picture
from basicsr_plugins.models.parts.patch_mask import hide_patches
from basicsr_plugins.models.parts.primitive_labels import PrimitiveLabels

SGD = {"type": "SGD", "lr": 0.1}
CDD = ["low", "haze", ["low", "haze"]]


@pytest.fixture(scope="module", autouse=True)
def _registered():
    basicsr_plugins.register()


def options(tmp_path, model="DCPTModel", classes=3, **train):
    data = {"type": "DegradationDataset", "dataroot_gt": str(tmp_path), "gt_size": 32,
            "degradations": ["GaussianNoise", "Haze", {"type": "LowLight", "name": "dark"}]}  # fmt: skip
    return {
        "name": "test", "model_type": model, "scale": 1, "num_gpu": 0, "dist": False, "rank": 0, "world_size": 1,
        "is_train": True, "manual_seed": 0,
        "datasets": {phase: {"name": phase, "phase": phase, **data} for phase in ("train", "val")},
        "network_g": {"type": "NAFNet", "width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
        "network_dc": {"type": "DegradationClassifier", "preset": "slim", "num_classes": classes},
        "path": {"models": str(tmp_path / "models"), "training_states": str(tmp_path / "states")},
        "train": {
            "total_iter": 10, "optim_g": SGD, **({"optim_dc": SGD} if model == "DCPTModel" else {}),
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}, **train,
        },
        "val": {},
    }  # fmt: skip


def build(opt):
    torch.manual_seed(0)
    model = lookup("model", opt["model_type"])(copy.deepcopy(opt))
    with torch.no_grad():  # NAFNet's residual branches start at zero and would hide what flows through them
        for name, parameter in model.net_g.named_parameters():
            if name.endswith(("beta", "gamma")):
                parameter.fill_(0.5)
    return model


def batch(seed=1, n=3, size=32):
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(n, 3, size, size, generator=generator)
    return {"lq": gt * 0.5, "gt": gt, "degradation": torch.arange(n) % 3}


def step(model, iteration=1, **arguments):
    model.feed_data(batch(**arguments))
    model.optimize_parameters(iteration)
    return model.get_current_log()


def weights(network):
    return torch.cat([value.detach().flatten() for value in network.state_dict().values()])


def write_images(folder, count=2):
    import cv2

    generator = np.random.default_rng(0)
    for index in range(count):
        image = cv2.resize(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8), (48, 40))
        cv2.imwrite(str(folder / f"{index}.png"), image)


# -- what is trained, and on what --------------------------------------------------------------------------------------


def test_train_only_classifier_leaves_the_restorer_bit_for_bit(tmp_path):
    opt = options(tmp_path, train_only="classifier")
    del opt["train"]["optim_g"], opt["train"]["pixel_opt"]
    model = build(opt)
    before_g, before_dc = weights(model.net_g), weights(model.net_dc)
    log = step(model)
    assert list(log) == ["l_cls"]
    assert len(model.optimizers) == 1
    assert torch.equal(weights(model.net_g), before_g)
    assert not torch.equal(weights(model.net_dc), before_dc)
    assert not model.net_g.training, "dropout and BatchNorm of a frozen network stay still"


@pytest.mark.parametrize(("pixel_input", "shown"), [("gt", "gt"), ("lq", "lq")])
def test_the_pixel_loss_sees_the_image_that_is_asked_for(tmp_path, pixel_input, shown):
    model = build(options(tmp_path, pixel_input=pixel_input))
    seen = []
    restore = model.restore
    model.restore = lambda image: (seen.append(image), restore(image))[1]
    step(model)
    assert len(seen) == 1
    assert torch.equal(seen[0], batch()[shown])


# -- MaskDCPT ----------------------------------------------------------------------------------------------------------


def test_exactly_the_share_of_patches_is_hidden_and_others_in_each_image():
    images = torch.ones(2, 3, 40, 48)
    hidden = hide_patches(images, 0.5, 16)
    assert set(hidden.unique().tolist()) == {0.0, 1.0}
    grid = torch.stack([hidden[:, 0, row::16, column::16][:, :3, :3] for row in (0, 7) for column in (0, 15)])
    assert torch.equal(grid[0], grid[-1]), "a patch is hidden as a whole"
    kept = hidden[:, 0, ::16, ::16].flatten(1).sum(dim=1)
    assert kept.tolist() == [9 - round(4.5)] * 2
    assert not torch.equal(hidden[0], hidden[1])
    assert torch.equal(hide_patches(images, 0.0, 16), images)
    third = hide_patches(images, 0.3, 16)[:, 0, ::16, ::16].flatten(1).sum(dim=1)
    assert third.tolist() == [9 - 3] * 2  # 2.7 patches, rounded


def test_masks_merge_the_two_phases_into_one_forward_pass(tmp_path):
    model = build(options(tmp_path, mask_ratio=0.5, mask_patch=8))
    before = copy.deepcopy(model.net_g)
    seen = []
    forward = model.net_g.forward
    model.net_g.forward = lambda x: (seen.append(x), forward(x))[1]
    log = step(model)
    assert set(log) == {"l_pix", "l_cls"}
    # the whole clean image out
    assert log["l_pix"] == pytest.approx(F.l1_loss(before(seen[0]), batch()["gt"]).item(), rel=1e-5)
    for side, whole in ((8, True), (16, False)):  # patches of 8 pixels
        squares = seen[0].abs().sum(dim=1).unfold(1, side, side).unfold(2, side, side).flatten(3) == 0
        assert torch.equal(squares.all(dim=-1), squares.any(dim=-1)) is whole
    assert len(seen) == 1
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.5)
    visible = seen[0] != 0
    assert torch.equal(seen[0][visible], batch()["lq"][visible]), "what is left is the degraded image"
    output = model.tap.with_output(seen[0])[0]
    assert output.shape == batch()["gt"].shape


def test_masks_do_not_go_with_a_frozen_restorer(tmp_path):
    write_images(tmp_path)
    with pytest.raises(OptionError, match=r"train.mask_ratio: train_only: classifier"):
        check_options(options(tmp_path, mask_ratio=0.5, train_only="classifier"))


# -- mixtures as primitives --------------------------------------------------------------------------------------------


def test_primitive_labels_go_both_ways():
    labels = PrimitiveLabels(["low", ["low", "rain"], "snow", []])
    assert labels.primitives == ["low", "rain", "snow"]
    assert labels.targets(torch.tensor([0, 1, 3])).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    logits = torch.tensor([[3.0, 2.0, -1.0], [-2.0, -3.0, -1.0], [0.2, -4.0, 5.0]])
    assert labels.likeliest(logits).tolist() == [1, 3, 2]
    assert labels.name(1) == "low & rain"
    assert labels.name(3) == "clean"
    with pytest.raises(DataError, match=r"label 4, but train.labels names 4: low, low & rain, snow, clean"):
        labels.targets(torch.tensor([4]))


def test_binary_cross_entropy_is_the_formula():
    logits, targets = torch.tensor([[0.5, -2.0]]), torch.tensor([[1.0, 1.0]])
    expected = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(2.0))) / 2
    assert BinaryCrossEntropyLoss(loss_weight=3.0)(logits, targets).item() == pytest.approx(3 * expected)


def test_mixtures_are_learnt_as_primitives_and_reported_by_label_and_primitive(tmp_path):
    write_images(tmp_path)
    opt = options(tmp_path, classes=2, labels=CDD, classification_opt={"type": "BinaryCrossEntropyLoss"})
    check_options(opt)
    model = build(opt)
    step(model)
    features = model.tap(batch()["lq"])
    model.feed_data(batch())
    expected = F.binary_cross_entropy_with_logits(model.net_dc(features), torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
    torch.testing.assert_close(model.classification_loss(features), expected)
    model.validation(DataLoader(lookup("dataset", "DegradationDataset")(opt["datasets"]["val"])), 1, None, False)
    assert {"accuracy", "exact_match", "primitive_low", "primitive_haze", "accuracy_low & haze"} <= set(
        model.metric_results
    )


def test_mixtures_are_judged_by_their_likeliest_label(tmp_path):
    model = build(options(tmp_path, classes=2, labels=CDD, classification_opt={"type": "BinaryCrossEntropyLoss"}))
    model.feed_data({name: value[2:] for name, value in batch().items()})
    model.net_dc.forward = lambda features: torch.tensor([[3.0, 2.0]])  # yes to both
    assert model.evaluate() == {"degradation": 2, "prediction": 2, "primitives": [True, True]}
    records = [
        {"degradation": 0, "prediction": 0, "primitives": [True, True]},
        {"degradation": 1, "prediction": 2, "primitives": [False, True]},
    ]
    metrics, _ = model.aggregate(records, "val")
    shares = {name: metrics[name] for name in ("accuracy", "exact_match", "primitive_low", "primitive_haze")}
    assert shares == {"accuracy": 0.5, "exact_match": 0.5, "primitive_low": 0.5, "primitive_haze": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 3}, r"network_dc.num_classes: train.labels names 2 primitives \(low, haze\)"),
        ({"classification_opt": {"type": "FocalLoss"}}, r"train.classification_opt: FocalLoss wants one class"),
        ({"labels": ["low", "haze"]}, r"train.labels: 2 meanings, but datasets.train returns labels up to 2"),
    ],
)
def test_primitives_that_do_not_fit_are_refused(tmp_path, changes, message):
    write_images(tmp_path)
    given = {"classes": 2, "labels": CDD, "classification_opt": {"type": "BinaryCrossEntropyLoss"}, **changes}
    with pytest.raises(OptionError, match=message):
        check_options(options(tmp_path, **given))


# -- names and pictures ------------------------------------------------------------------------------------------------


class Board:
    """Stands for TensorBoard's writer."""

    def __init__(self):
        self.scalars, self.images = {}, {}

    def add_scalar(self, name, value, step):
        self.scalars[name] = value

    def add_image(self, name, picture, step, dataformats):
        assert dataformats == "HWC"
        self.images[name] = picture


def test_accuracies_carry_the_degradations_names_and_the_confusion_is_a_picture(tmp_path):
    write_images(tmp_path)
    opt = options(tmp_path)
    model = build(opt)
    assert model.class_names()[2] == "dark"
    assert len(set(model.class_names())) == 3
    board = Board()
    model.validation(DataLoader(lookup("dataset", "DegradationDataset")(opt["datasets"]["val"])), 1, board, False)
    assert "accuracy_dark" in model.metric_results
    assert "metrics/val/accuracy_dark" in board.scalars
    assert int(model.confusion.sum()) == 6
    picture = board.images["val/confusion"]
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, confusion_picture(model.confusion, model.class_names()))
    assert model.aggregate([{}], "unlabelled") == ({}, "")
    assert model.report_pictures() == {}, "not the picture of another data set"


def test_the_training_set_names_the_classes(tmp_path):
    opt = options(tmp_path)
    opt["datasets"]["aaa"] = opt["datasets"].pop("val")
    opt["datasets"]["aaa"]["degradations"] = [{"type": "GaussianNoise", "name": "x"}, "Rain", "Snow", "JPEG"]
    assert build(opt).class_names() == ["noise", "haze", "dark"]
    opt["network_dc"]["num_classes"] = 5
    assert build(opt).class_names() == ["noise", "haze", "dark", "jpeg", "4"]


def test_a_darker_cell_is_a_larger_share():
    picture = confusion_picture(np.array([[8, 0], [2, 2]]), ["a", "bc"]).astype(int)
    side = 56
    corner = picture.shape[0] - 2 * side
    shades = [[picture[corner + r * side + 4, corner + c * side + 4, 0] for c in (0, 1)] for r in (0, 1)]
    assert shades[0][0] < shades[1][0] == shades[1][1] < shades[0][1] == 255


def test_mixes_are_named_after_their_children(tmp_path):
    kind = lookup("dataset", "AllInOneDataset")
    children = {
        "rain": {"type": "PairedRuleDataset", "dataroot_lq": "a"},
        "both": {"type": "DegradationDataset", "dataroot_gt": "b", "degradations": ["Haze", "LowLight"]},
    }
    names = kind.plan({"name": "mix", "phase": "train", "children": children}).label_names
    assert names[0] == "rain"
    assert list(names) == [0, 1, 2]
    assert names[1] != names[2]


# -- guided transfer ---------------------------------------------------------------------------------------------------


@pytest.fixture
def guide(tmp_path):
    """Weights of a classifier on the tiny restorer, for three classes and for two."""
    paths = {}
    for classes in (3, 2):
        network = build(options(tmp_path, classes=classes)).net_dc
        paths[classes] = tmp_path / f"dc{classes}.pth"
        save({"params": network.state_dict()}, paths[classes])
    return paths


def guided(tmp_path, guide, classes=3, **train):
    opt = options(tmp_path, model="DCGuidedModel", classes=classes, **{"target_class": 1, **train})
    opt["path"]["pretrain_network_dc"] = str(guide[classes])
    return opt


def test_guidance_is_the_frozen_classifiers_cross_entropy_to_the_target(tmp_path, guide):
    model = build(guided(tmp_path, guide, guidance_weight=2.0))
    network = copy.deepcopy(model.net_g)
    before = weights(model.net_dc)
    log = step(model)
    data = batch()
    output, features = FeatureTap(network, network.feature_layers).with_output(data["lq"])
    target = torch.full((3,), 1)
    guidance = 2.0 * F.cross_entropy(model.net_dc(features), target)
    pixel = F.l1_loss(output, data["gt"])
    (guidance + pixel).backward()
    assert log["l_dc"] == pytest.approx(guidance.item(), rel=1e-5)
    assert log["l_pix"] == pytest.approx(pixel.item(), rel=1e-5)
    assert torch.equal(weights(model.net_dc), before), "the classifier is frozen"
    assert not model.net_dc.training
    assert all(parameter.grad is None for parameter in model.net_dc.parameters())
    for mine, wanted in zip(model.net_g.parameters(), network.parameters()):
        torch.testing.assert_close(mine, wanted - 0.1 * wanted.grad)


def test_without_guidance_it_is_the_plain_twin(tmp_path, guide):
    mine = build(guided(tmp_path, guide, guidance_weight=0.0))
    plain_opt = options(tmp_path, model="RestorationModel")
    del plain_opt["network_dc"]
    plain = build(plain_opt)
    mine.net_g.load_state_dict(plain.net_g.state_dict())
    for iteration in (1, 2):
        step(mine, iteration, seed=iteration)
        step(plain, iteration, seed=iteration)
    assert torch.equal(weights(mine.net_g), weights(plain.net_g))


def test_binary_guidance_wants_the_input_degraded_and_the_target_clean(tmp_path, guide):
    model = build(guided(tmp_path, guide, classes=2, guidance="binary"))
    network = copy.deepcopy(model.net_g)
    log = step(model)
    tap = FeatureTap(network, network.feature_layers)
    for name, image, wanted in (("l_dc", "lq", 1), ("l_dc_clean", "gt", 0)):
        expected = 0.5 * F.cross_entropy(model.net_dc(tap(batch()[image])), torch.full((3,), wanted))
        assert log[name] == pytest.approx(expected.item(), rel=1e-5), name


def test_validation_says_how_often_the_target_is_seen(tmp_path, guide):
    write_images(tmp_path)
    opt = guided(tmp_path, guide)
    model = build(opt)
    model.validation(DataLoader(lookup("dataset", "DegradationDataset")(opt["datasets"]["val"])), 1, None, False)
    assert int(model.confusion[1].sum()) == 6, "every image shall be taken for class 1"
    assert 0 <= model.metric_results["accuracy"] <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_class": 3}, r"train.target_class: .* 0 to 2, got 3"),
        ({"target_class": None}, r"train.target_class: .* got None"),
        ({"guidance": "binary"}, r"network_dc.num_classes: guidance: binary needs"),
        ({"no_classifier": True}, r"path.pretrain_network_dc: this option is required"),
        ({"target_clas": 1}, r"train.target_clas: unknown option .*target_class"),
    ],
)
def test_guidance_that_cannot_work_is_refused(tmp_path, guide, changes, message):
    write_images(tmp_path)
    without = changes.pop("no_classifier", False)
    opt = guided(tmp_path, guide, **changes)
    if without:
        del opt["path"]["pretrain_network_dc"]
    with pytest.raises(OptionError, match=message):
        check_options(opt)


def test_a_target_that_binary_guidance_would_not_look_at_is_refused(tmp_path, guide):
    write_images(tmp_path)
    opt = guided(tmp_path, guide, classes=2, guidance="binary", target_class=None)
    for section in opt["datasets"].values():
        section["degradations"] = section["degradations"][:2]
    check_options(copy.deepcopy(opt))
    opt["train"]["target_class"] = 1
    with pytest.raises(OptionError, match=r"train.target_class: guidance: binary tells degraded"):
        check_options(opt)
