"""SPNLoss: formula, gradients, sign, precision, memory-saving paths and bad input."""

from __future__ import annotations

import pytest
import torch
from spn_reference import LAYER_INDICES, TinyFeatures, images, mean_absolute
from torch import nn
from torch.nn import functional as F

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.losses.feature_distance import RANGE_CHECKS
from basicsr_plugins.losses.spn_loss import SPN_LAYERS, SPNLoss

TINY = {"first": 0.3, "second": 0.7}


def tiny_loss(**options):
    return SPNLoss(features=TinyFeatures(), layers=TINY, **options)


def written_out(output, negatives, weight, layers, features):
    """-lambda * 1/N * sum_i sum_l w_l * mean|phi_l(out) - phi_l(neg_i)|, number by number."""
    total = 0.0
    with torch.no_grad():
        own = features(output)
        for negative in negatives:
            theirs = features(negative)
            for layer, layer_weight in layers.items():
                total += layer_weight * mean_absolute(own[layer], theirs[layer])
    return -weight * total / len(negatives)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("weight", [1e-4, 1.0])
def test_equals_the_formula_written_out(count, weight):
    output, *negatives = images(count + 1)
    expected = written_out(output, negatives, weight, TINY, TinyFeatures())
    loss = tiny_loss(loss_weight=weight)
    assert loss(output, negatives).item() == pytest.approx(expected, rel=1e-5)
    assert loss(output.requires_grad_(), torch.stack(negatives)).item() == pytest.approx(expected, rel=1e-5)


def test_default_is_the_released_vgg16_setting():
    """Layers, weights, ImageNet normalisation and lambda of the released configuration, on torchvision's own VGG16."""
    from torchvision.models.vgg import cfgs, make_layers

    loss = SPNLoss(weights="random")
    assert loss.loss_weight == 1e-4
    assert loss.distance.layer_weights == {"relu1_2": 0.2, "relu2_2": 0.3, "relu3_3": 0.5}
    net = make_layers(cfgs["D"]).eval()
    ours = [layer for layer in loss.distance.features.net if isinstance(layer, nn.Conv2d)]
    for theirs, own in zip([layer for layer in net if isinstance(layer, nn.Conv2d)], ours):
        theirs.load_state_dict(own.state_dict())

    def features(image):
        x = (image - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
            1, 3, 1, 1
        )
        found = {}
        for index, layer in enumerate(net[:16]):
            x = layer(x)
            found.update({name: x.clone() for name, at in LAYER_INDICES.items() if at == index})
        return found

    output, first, second = images(3, size=32, batch=1)
    output.requires_grad_()
    value = loss(output, [first, second])
    (gradient,) = torch.autograd.grad(value, output)
    textbook = 0.0
    for negative in (first, second):
        own, theirs = features(output), features(negative)
        textbook = textbook - sum(w * F.l1_loss(own[name], theirs[name]) for name, w in SPN_LAYERS.items()) / 2
    (expected,) = torch.autograd.grad(1e-4 * textbook, output)
    assert value.item() == pytest.approx(1e-4 * textbook.item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-9 + 1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_gradcheck_in_float64(batch):
    output, *negatives = images(4, size=5, batch=1, dtype=torch.float64)
    loss = tiny_loss(loss_weight=1.0, negative_batch=batch).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, negatives), output.requires_grad_(), eps=1e-7, atol=1e-6)


def test_gradient_is_the_textbooks_with_unequal_weights_too():
    from basicsr_plugins.losses.feature_distance import weighted_l1

    x, *references = images(4, dtype=torch.float64)
    x.requires_grad_()
    for weights in ([0.25] * 3, [0.5, 0.2, 0.3]):
        total, each = weighted_l1(x, torch.stack(references), weights)
        textbook = sum(w * F.l1_loss(x, r) for w, r in zip(weights, references))
        torch.testing.assert_close(total, textbook)
        torch.testing.assert_close(each, torch.stack([F.l1_loss(x, r) for r in references]).detach())
        torch.testing.assert_close(torch.autograd.grad(total, x)[0], torch.autograd.grad(textbook, x)[0])
    many = torch.zeros(200, *x.shape, dtype=x.dtype)  # more signs than a byte counts
    (gradient,) = torch.autograd.grad(weighted_l1(x, many, [1 / 200] * 200)[0], x)
    torch.testing.assert_close(gradient, torch.full_like(x, 1 / x.numel()))


def test_falls_as_the_output_moves_away_from_the_negatives():
    (negative,) = images(1)
    direction = torch.randn_like(negative).sign() * 0.02
    loss = tiny_loss(loss_weight=1.0)
    values = [loss(negative + step * direction, [negative]).item() for step in range(5)]
    assert values[0] == 0
    assert all(later < earlier for earlier, later in zip(values, values[1:]))
    # and a step against the gradient is such a move
    output = (negative + direction).requires_grad_()
    value = loss(output, [negative])
    (gradient,) = torch.autograd.grad(value, output)
    assert loss(output.detach() - 1e-2 * gradient / gradient.abs().max(), [negative]) < value


def test_no_gradient_reaches_the_negatives_or_the_features():
    output, *negatives = images(3)
    for image in (output, *negatives):
        image.requires_grad_()
    loss = tiny_loss()
    loss(output, negatives).backward()
    assert output.grad.abs().sum() > 0
    assert all(negative.grad is None for negative in negatives)
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_terms_name_the_distance():
    output, negative = images(2)
    terms = tiny_loss(loss_weight=0.5).terms(output.requires_grad_(), [negative])
    assert set(terms) == {"l_spn", "spn_distance"}
    assert terms["l_spn"].item() == pytest.approx(-0.5 * terms["spn_distance"].item())
    assert not terms["spn_distance"].requires_grad


def test_signed_range_gives_the_same_value():
    output, negative = images(2)
    unit = SPNLoss(weights="random")
    signed = SPNLoss(weights="random", range_norm=True)
    signed.load_state_dict(unit.state_dict())
    assert signed(output * 2 - 1, [negative * 2 - 1]).item() == pytest.approx(unit(output, [negative]).item(), rel=1e-4)


def test_pixel_features():
    output, negative = images(2)
    loss = SPNLoss(features="pixel", loss_weight=1.0)
    assert loss(output, [negative]).item() == pytest.approx(-F.l1_loss(output, negative).item())
    signed = SPNLoss(features="pixel", loss_weight=1.0, range_norm=True)
    assert signed(output, [negative]).item() == pytest.approx(-0.5 * F.l1_loss(output, negative).item())


def test_vgg_stays_frozen_in_eval_mode_and_in_float32_under_autocast():
    output, negative = images(2)
    loss = SPNLoss(weights="random").train()
    assert not any(module.training for module in loss.distance.modules() if module is not loss.distance)
    plain = loss(output, [negative])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(output, [negative])
    assert mixed.dtype == torch.float32
    assert mixed.item() == plain.item()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_give_finite_losses_and_gradients(kind):
    output, negative = (image.to(kind) for image in images(2))
    output.requires_grad_()
    value = SPNLoss(weights="random")(output, [negative])
    value.backward()
    assert torch.isfinite(value)
    assert output.grad.dtype == kind
    assert torch.isfinite(output.grad).all()


def test_lower_precision_of_the_negatives_changes_little():
    output, negative = images(2, size=16)
    exact = SPNLoss(weights="random")
    lower = SPNLoss(weights="random", negative_precision="bf16")
    lower.load_state_dict(exact.state_dict())
    full, low = exact(output, [negative]).item(), lower(output, [negative]).item()
    assert full != low
    assert low == pytest.approx(full, rel=0.02)


def test_one_pass_over_the_output_and_one_over_all_negatives():
    calls = []

    class Counting(TinyFeatures):
        def forward(self, images):
            calls.append((len(images), torch.is_grad_enabled()))
            return super().forward(images)

    output, *negatives = images(5)
    SPNLoss(features=Counting(), layers=TINY)(output.requires_grad_(), negatives).backward()
    assert calls == [(2, True), (8, False)]


@pytest.mark.parametrize("batch", [None, 2])
def test_the_distance_of_each_reference(batch):
    output, *negatives = images(4)
    mean, each = tiny_loss(negative_batch=batch).distance(output, torch.stack(negatives))
    expected = [-written_out(output, [negative], 1.0, TINY, TinyFeatures()) for negative in negatives]
    assert each.tolist() == pytest.approx(expected, rel=1e-5)
    assert mean.item() == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_negative_batch_bounds_the_pass_over_the_negatives():
    sizes = []

    class Counting(TinyFeatures):
        def forward(self, images):
            sizes.append(len(images))
            return super().forward(images)

    output, *negatives = images(4)
    SPNLoss(features=Counting(), layers=TINY, negative_batch=2)(output, negatives)
    assert sizes == [2, 4, 2]


def test_keeps_one_graph_however_many_negatives():
    def saved_bytes(count):
        sizes = []
        output, *negatives = images(count + 1, size=16)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.append(t.numel() * t.element_size()), t)[1], lambda t: t
        ):
            tiny_loss()(output.requires_grad_(), negatives)
        return sum(sizes)

    assert saved_bytes(8) == saved_bytes(1)


def test_tapped_convolution_is_not_overwritten_by_the_relu_after_it():
    from basicsr_plugins.losses.perceptual_features import VGGFeatures

    found = VGGFeatures("vgg11", ["conv1_1", "relu1_1"], weights="random")(torch.rand(1, 3, 8, 8))
    assert (found["conv1_1"] < 0).any()
    torch.testing.assert_close(found["relu1_1"], found["conv1_1"].clamp_min(0))


class Plain(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, images):
        return {"tensor": images, "list": [images, images * 2]}[self.kind]


def test_user_modules_may_return_tensors_lists_and_dicts():
    output, negative = images(2)
    distance = F.l1_loss(output, negative).item()
    assert SPNLoss(1.0, Plain("tensor"))(output, [negative]).item() == pytest.approx(-distance)
    assert SPNLoss(1.0, Plain("list"))(output, [negative]).item() == pytest.approx(-3 * distance)
    assert SPNLoss(1.0, Plain("list"), layers=["1"])(output, [negative]).item() == pytest.approx(-2 * distance)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layers": {"relu3_4": 1.0}}, "unknown layer of vgg16 'relu3_4'.*Did you mean 'relu3_"),
        ({"features": "vgg99", "layers": ["relu1_1"]}, "unknown backbone 'vgg99'.*Allowed: vgg11, vgg13, vgg16, vgg19"),
        ({"features": "pixel", "layers": ["relu1_1"]}, "unknown layer of features: pixel 'relu1_1'"),
        ({"layers": {"relu1_2": -1}}, "layers.relu1_2: expected a weight of 0 or more"),
        ({"layers": {}}, "at least one layer"),
        ({"loss_weight": -1.0}, "loss_weight: must be 0 or more"),
        ({"negative_precision": "fp8"}, "unknown precision 'fp8'"),
        ({"negative_batch": 0}, "reference_batch: must be 1 or more"),
        ({"features": 3}, "features: expected a name"),
        ({"features": {"width": 3}}, "features.type: this option is required"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(OptionError, match=text):
        SPNLoss(**{"weights": "random", **options})


def test_wrong_user_layer():
    output, negative = images(2)
    with pytest.raises(OptionError, match=r"unknown feature of TinyFeatures 'frist'\. Did you mean 'first'"):
        SPNLoss(features=TinyFeatures(), layers=["frist"])(output, [negative])


def test_wrong_inputs():
    output, negative = images(2)
    loss = tiny_loss()
    with pytest.raises(OptionError, match=r"at least one is needed, got none \(N = 0\)"):
        loss(output, [])
    with pytest.raises(DataError, match=r"expected the output's shape \(2, 3, 8, 8\), got \(2, 3, 4, 4\)"):
        loss(output, [negative[..., :4, :4]])
    with pytest.raises(DataError, match="all must have one shape"):
        loss(output, [negative, negative[..., :4, :4]])


def test_images_that_a_vgg_cannot_take():
    loss = SPNLoss(weights="random")
    for shape in ((1, 1, 16, 16), (1, 3, 2, 16)):
        with pytest.raises(DataError, match=r"takes images \(n, 3, h, w\) of at least 4 x 4 pixels, got"):
            loss(torch.rand(shape), [torch.rand(shape)])


@pytest.mark.parametrize("change", [lambda x: x * 255, lambda x: x * 2 - 1])
def test_images_out_of_range(change):
    output, negative = images(2, size=32)
    with pytest.raises(DataError, match=r"images out of range: expected \[0, 1\].*Divide 8-bit images by 255"):
        tiny_loss()(change(output), [change(negative)])
    slightly = output * 1.1 - 0.05  # a network that has not learned yet
    loss = tiny_loss()
    for _ in range(RANGE_CHECKS):
        assert torch.isfinite(loss(slightly, [negative]))
    assert torch.isfinite(loss(change(output), [negative])), "each check waits for the device: only the first calls"


def test_imports_torch_and_torchvision_alone(run_isolated):
    text = run_isolated(
        "import sys, torch; from basicsr_plugins.losses.spn_loss import SPNLoss; import basicsr_plugins.negatives\n"
        "SPNLoss(features='pixel')(torch.rand(1, 3, 4, 4), [torch.rand(1, 3, 4, 4)])\n"
        "print([name for name in ('basicsr', 'mmengine', 'peft', 'cv2') if name in sys.modules])"
    )
    assert text == "[]"
