"""PSNRLoss and SSIMLoss against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from spn_reference import images

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.losses.psnr_loss import PSNRLoss
from basicsr_plugins.losses.ssim_loss import SSIMLoss


def test_psnr_is_the_mean_over_images():
    pred, target = images(2, size=16)
    expected = sum(peak_signal_noise_ratio(t.numpy(), p.numpy(), data_range=1) for p, t in zip(pred, target)) / 2
    assert PSNRLoss(loss_weight=0.5)(pred, target).item() == pytest.approx(-0.5 * expected, rel=1e-4)

    assert PSNRLoss()(target, target).item() == pytest.approx(-80)  # 10 log10 of 1e-8: no infinity


@pytest.mark.parametrize(("window_size", "sigma"), [(11, 1.5), (9, 1.0)])
def test_ssim(window_size, sigma):
    pred, target = images(2, size=24, batch=1)
    pred = (pred + 3 * target) / 4
    # zeros around both: what the loss does at the border (scikit-image cuts its window off at 3.5 sigma, which is ours)
    bordered = [np.pad(image[0].numpy(), ((0, 0), (12, 12), (12, 12))) for image in (target, pred)]
    _, expected = structural_similarity(
        *bordered, channel_axis=0, data_range=1, gaussian_weights=True, sigma=sigma, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    loss = SSIMLoss(loss_weight=2.0, window_size=window_size, sigma=sigma)
    assert -loss(pred, target).item() == pytest.approx(2 * expected[:, 12:-12, 12:-12].mean(), abs=1e-5)
    assert loss(target, target).item() == pytest.approx(-2, abs=1e-5)
    assert loss(pred, target) > loss((pred + target) / 2, target)


def test_the_window_has_its_size():
    window = SSIMLoss(window_size=5, sigma=0.5).window
    weights = np.exp(-(np.arange(-2.0, 3) ** 2) / 0.5)
    np.testing.assert_allclose(window, weights / weights.sum(), rtol=1e-5)


def test_ssim_is_taken_in_float32():
    pred, target = images(2, size=16)
    exact = SSIMLoss()(pred, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert SSIMLoss()(pred, target).item() == exact.item()
    assert SSIMLoss()(pred.half(), target.half()).item() == pytest.approx(exact.item(), abs=1e-3)
    assert SSIMLoss()(pred.half(), target.half()).dtype == torch.float32


@pytest.mark.parametrize("loss", [PSNRLoss(), SSIMLoss()])
def test_gradient(loss):
    pred, target = images(2, size=16)
    pred.requires_grad_()
    value = loss(pred, target)
    (gradient,) = torch.autograd.grad(value, pred)
    assert loss(pred - 0.01 * gradient.sign(), target) < value


def test_wrong_options():
    with pytest.raises(OptionError, match="window_size must be odd"):
        SSIMLoss(window_size=10)
    for loss in (PSNRLoss, SSIMLoss):
        with pytest.raises(OptionError, match="has only 'mean'"):
            loss(reduction="sum")
