"""PSNRLoss and SSIMLoss against scikit-image."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from spn_reference import images

from basicsr_plugins.errors import OptionError
from basicsr_plugins.losses.psnr_loss import PSNRLoss
from basicsr_plugins.losses.ssim_loss import SSIMLoss


def test_psnr_is_the_mean_over_images():
    pred, target = images(2, size=16)
    expected = sum(peak_signal_noise_ratio(t.numpy(), p.numpy(), data_range=1) for p, t in zip(pred, target)) / 2
    assert PSNRLoss(loss_weight=0.5)(pred, target).item() == pytest.approx(-0.5 * expected, rel=1e-4)


def test_ssim():
    pred, target = images(2, size=48, batch=1)
    pred = (pred + 3 * target) / 4
    _, expected = structural_similarity(
        target[0].numpy(), pred[0].numpy(), channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    loss = SSIMLoss()
    assert -loss(pred, target).item() == pytest.approx(expected.mean(), abs=0.02)  # borders differ
    assert loss(target, target).item() == pytest.approx(-1, abs=1e-5)
    assert loss(pred, target) > loss((pred + target) / 2, target)


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
