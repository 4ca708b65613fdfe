"""PCL: the InfoNCE form written out, its samples, and the gradient that the published script loses."""

from __future__ import annotations

import math

import pytest
import torch
from spn_reference import TinyFeatures, images, mean_absolute

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.losses.pcl_loss import PCLLoss
from basicsr_plugins.losses.pcl_samples import blurred, pcl_negatives, pcl_positives, sharpened

LAYERS = ["first", "second"]


def tiny_loss(**options):
    return PCLLoss(features=TinyFeatures(), layers=LAYERS, **options)


def cosine(a, b):
    """Spatial mean of the channel-wise cosine of two features (c, h, w)."""
    total = 0.0
    for y in range(a.shape[1]):
        for x in range(a.shape[2]):
            u, v = a[:, y, x].tolist(), b[:, y, x].tolist()
            dot = sum(p * q for p, q in zip(u, v))
            total += dot / math.sqrt(sum(p * p for p in u) * sum(q * q for q in v))
    return total / (a.shape[1] * a.shape[2])


def test_infonce_written_out():
    output, *others = images(6, size=4)
    positives, negatives = others[:2], others[2:]
    features, total = TinyFeatures(), 0.0
    with torch.no_grad():
        own = features(output)
        for layer in LAYERS:
            for image in range(len(output)):
                away = sum(math.exp(cosine(own[layer][image], features(other)[layer][image])) for other in negatives)
                for other in positives:
                    near = math.exp(cosine(own[layer][image], features(other)[layer][image]))
                    total -= math.log(near / (near + away)) / (len(LAYERS) * len(output) * len(positives))
    assert tiny_loss().contrast(output, positives, negatives).item() == pytest.approx(total, rel=1e-4)


def test_other_forms_written_out():
    output, positive, negative = images(3, size=4)
    features = TinyFeatures()
    with torch.no_grad():
        a, p, n = features(output), features(positive), features(negative)
    difference = [
        cosine(a[layer][image], n[layer][image]) - cosine(a[layer][image], p[layer][image])
        for layer in LAYERS
        for image in range(len(output))
    ]
    value = tiny_loss(form="cosine").contrast(output, [positive], [negative]).item()
    assert value == pytest.approx(sum(difference) / len(difference), rel=1e-3)
    ratios = [mean_absolute(a[k], p[k]) / (mean_absolute(a[k], n[k]) + 3e-7) for k in LAYERS]
    value = tiny_loss(form="l1").contrast(output, [positive], [negative]).item()
    assert value == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)
    weighted = PCLLoss(features=TinyFeatures(), layers={"first": 0.25, "second": 1.0}, form="l1")
    value = weighted.contrast(output, [positive], [negative]).item()
    assert value == pytest.approx((0.25 * ratios[0] + ratios[1]) / 1.25, rel=1e-4)


def test_options_reach_the_samples_and_the_loss():
    output, target, lq = images(3, size=16)
    loss = tiny_loss(loss_weight=2.0, positives=1, negatives=2, seed=4)
    positive, negative = loss.samples(target, lq)
    assert (len(positive), len(negative)) == (2, 3)
    loss.generator.manual_seed(4)
    assert loss(output, target, lq).item() == pytest.approx(2 * loss.contrast(output, positive, negative).item())


@pytest.mark.parametrize("form", ["infonce", "cosine", "l1"])
def test_gradient_flows_into_the_output(form):
    output, target, lq = images(3, size=16)
    for image in (output, target, lq):
        image.requires_grad_()
    tiny_loss(form=form)(output, target, lq).backward()
    assert output.grad.abs().sum() > 0
    assert target.grad is None
    assert lq.grad is None


def test_gradcheck_in_float64():
    output, *others = images(4, size=4, batch=1, dtype=torch.float64)
    loss = tiny_loss().double()
    call = loss.contrast
    assert torch.autograd.gradcheck(lambda x: call(x, others[:1], others[1:]), output.requires_grad_(), atol=1e-5)


def test_better_outputs_cost_less():
    _, target, lq = images(3, size=16)
    loss = tiny_loss(seed=3, form="cosine")
    good = loss(target, target, lq).item()
    assert good < loss(lq, target, lq).item()


def test_sharpening_is_pils():
    import numpy as np
    from PIL import Image, ImageEnhance

    pixels = np.random.default_rng(0).integers(60, 200, (9, 12, 3), dtype=np.uint8)
    ours = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    for factor in (0.5, 1.0, 2.0):
        theirs = np.asarray(ImageEnhance.Sharpness(Image.fromarray(pixels)).enhance(factor), dtype=np.float32) / 255
        found = sharpened(ours, torch.tensor([factor]))[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, theirs, atol=2.1 / 255)
    strong = sharpened(torch.from_numpy(pixels % 2).permute(2, 0, 1)[None].float(), torch.tensor([3.0]))
    assert (strong.min(), strong.max()) == (0, 1), "sharpening ends at black and white"


def test_blur_keeps_the_mean_and_lowers_the_contrast():
    (image,) = images(1, size=32)
    found = blurred(image, torch.Generator().manual_seed(0))
    assert found.shape == image.shape
    assert found.std() < image.std()
    torch.testing.assert_close(found.mean(), image.mean(), atol=5e-3, rtol=0)
    flat = torch.full((2, 3, 16, 16), 0.4)
    torch.testing.assert_close(blurred(flat), flat)
    tiny = torch.rand(1, 3, 4, 4)
    assert blurred(tiny).shape == tiny.shape  # smaller than the largest kernel


def test_blurs_are_drawn_as_published():
    """A point's picture is the kernel: odd sizes 3 to 11 in equal parts, deviations up to 2, a new one per image."""
    points = torch.zeros(300, 1, 21, 21)
    points[:, :, 10, 10] = 1
    rows = blurred(points, torch.Generator().manual_seed(0)).sum(dim=-1)[:, 0]
    assert len({tuple(row.tolist()) for row in rows}) > 290
    supports = (rows > 0).sum(dim=1)
    assert set(supports.tolist()) == {3, 5, 7, 9, 11}
    assert (supports <= 5).float().mean() == pytest.approx(0.45, abs=0.1)
    deviations = (rows * (torch.arange(21.0) - 10) ** 2).sum(dim=1).sqrt()
    assert 1.88 < deviations.max() < 2


def test_sharpening_factors_are_drawn_as_published():
    images = 0.4 + 0.02 * torch.rand(200, 3, 6, 6)  # faint, so that nothing is cut off
    smooth = sharpened(images, torch.zeros(200))
    moved = pcl_positives(images, 1, torch.Generator().manual_seed(0))[1] - smooth
    factors = (moved * (images - smooth)).flatten(1).sum(1) / (images - smooth).square().flatten(1).sum(1)
    assert 0.49 < factors.min() < 0.6
    assert 2.9 < factors.max() < 3.01


def test_samples_are_drawn_as_published():
    _, target = images(2, size=32)
    lq = torch.rand(2, 3, 8, 8)
    generator = torch.Generator().manual_seed(1)
    positives = pcl_positives(target, 3, generator)
    negatives = pcl_negatives(target, lq, 3, generator)
    assert positives.shape == negatives.shape == (4, 2, 3, 32, 32)
    torch.testing.assert_close(positives[0], target)
    upsampled = torch.nn.functional.interpolate(lq, size=32, mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(negatives[0], upsampled)
    assert not torch.equal(positives[1], positives[2])
    again = pcl_positives(target, 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(again, positives)


def test_signed_range():
    output, target, lq = images(3, size=16)
    unit, signed = tiny_loss(seed=5), tiny_loss(seed=5, range_norm=True)
    found = signed(output * 2 - 1, target * 2 - 1, lq * 2 - 1).item()
    assert found == pytest.approx(unit(output, target, lq).item(), rel=1e-4)


def test_wrong_options():
    with pytest.raises(OptionError, match=r"unknown form 'infonse'\. Did you mean 'infonce'"):
        tiny_loss(form="infonse")
    with pytest.raises(OptionError, match="must be 0 or more"):
        tiny_loss(positives=-1)
    output, target, lq = images(3, size=16)
    with pytest.raises(DataError, match="images out of range"):
        tiny_loss()(output, target * 1.2, lq)


def test_a_resumed_run_draws_on_where_it_stopped():
    from basicsr_plugins.negatives.ingredient import SPN

    options = {"loss": {"type": "PCLLoss", "features": "pixel", "seed": 3}, "guard": {"warmup_iter": 0}}
    images = torch.rand(2, 3, 16, 16)
    network = torch.nn.Conv2d(3, 3, 1)

    def losses(spn, count):
        return [spn.losses(images * 0.9, images, images * 0.8)["l_pcl"].item() for _ in range(count)]

    straight, stopped, resumed = (SPN(options, network) for _ in range(3))
    expected = losses(straight, 4)
    assert losses(stopped, 2) == expected[:2]
    state = stopped.state_dict()
    resumed.load_state_dict(state)
    assert losses(resumed, 2) == expected[2:]
    assert expected[2:] != expected[:2]
    del state["loss"]["_extra_state"]  # as older versions wrote it
    resumed.load_state_dict(state)


def test_without_a_seed_there_is_no_generator_to_save():
    loss = tiny_loss(seed=None)
    assert loss.get_extra_state().numel() == 0
    loss.load_state_dict(tiny_loss(seed=4).state_dict())
    assert loss.generator is None
