"""Classification accuracy, the input's own scores, and the bridge to pyiqa."""

import inspect
import sys
import types

import numpy as np
import pytest
import torch

from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import DataError, DependencyError, OptionError
from basicsr_plugins.metrics import pyiqa_metric
from basicsr_plugins.metrics.classification import accuracies, calculate_accuracy, confusion_matrix
from basicsr_plugins.metrics.input_metric import calculate_input_psnr, calculate_input_ssim


def test_accuracy_of_one_image():
    assert calculate_accuracy([0.1, 2.0, 0.3], 1) == 1
    assert calculate_accuracy([0.1, 2.0, 0.3], 2) == 0
    assert calculate_accuracy(np.array([[0.1, 2.0, 0.3]]), 2, top_k=2) == 1
    assert calculate_accuracy([1.0, 1.0], 0) == 0  # a network that says the same for all knows nothing


def test_every_metric_that_is_listed_can_be_given_in_an_option_file():
    for name, metric in registration.provided("metric").items():
        needed = [key for key, value in inspect.signature(metric).parameters.items() if value.default is value.empty]
        assert set(needed) <= {"img", "img2", "img_lq", "kwargs"}, name


def test_a_class_without_samples_has_no_accuracy():
    total, per_class = accuracies(confusion_matrix([0, 0, 2, 2], [0, 2, 2, 2], 3))
    assert total == 0.75
    assert per_class[0] == 0.5
    assert np.isnan(per_class[1])
    assert per_class[2] == 1.0
    assert np.isnan(accuracies(np.zeros((2, 2), dtype=np.int64))[0])


@pytest.mark.parametrize("options", [{}, {"crop_border": 4}, {"crop_border": 4, "test_y_channel": True}])
def test_scores_of_the_input_are_basicsrs(options):
    from basicsr.metrics import calculate_psnr, calculate_ssim

    rng = np.random.default_rng(0)
    clean, lq, output = (rng.integers(0, 256, (24, 30, 3)).astype(np.uint8) for _ in range(3))
    for ours, stock in ((calculate_input_psnr, calculate_psnr), (calculate_input_ssim, calculate_ssim)):
        assert ours(output, clean, lq, **options) == stock(lq, clean, **{"crop_border": 0, **options})
        with pytest.raises(DataError, match="does not hand over its input"):
            ours(output, clean)


@pytest.fixture
def fake_pyiqa(monkeypatch):
    """A stand-in with pyiqa's interface: 'mean' needs no reference, 'l1' does."""
    module = types.ModuleType("pyiqa")
    calls = []

    class Metric:
        def __init__(self, mode):
            self.metric_mode = mode

        def __call__(self, *images):
            calls.append(images)
            return (images[0] - images[1]).abs().mean() if self.metric_mode == "FR" else images[0][:, 0].mean()

    module.list_models = lambda: ["l1", "mean"]
    module.create_metric = lambda name, device, **options: Metric("FR" if name == "l1" else "NR")
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    pyiqa_metric._scorer.cache_clear()
    yield calls
    pyiqa_metric._scorer.cache_clear()


def test_images_reach_pyiqa_as_rgb_tensors_in_zero_to_one(fake_pyiqa):
    red = np.zeros((6, 8, 3), dtype=np.uint8)
    red[:, :, 2] = 255  # BGR
    assert pyiqa_metric.calculate_pyiqa(red, metric="mean", device="cpu") == pytest.approx(1)
    image = fake_pyiqa[0][0]
    assert image.shape == (1, 3, 6, 8)
    assert image.dtype == torch.float32
    black = np.zeros_like(red)
    assert pyiqa_metric.calculate_pyiqa(red, black, metric="l1", device="cpu") == pytest.approx(1 / 3)
    pyiqa_metric.calculate_pyiqa(red, black, metric="l1", crop_border=2, device="cpu")
    assert fake_pyiqa[-1][0].shape == (1, 3, 2, 4)


def test_pyiqa_errors(fake_pyiqa, monkeypatch):
    image = np.zeros((6, 8, 3), dtype=np.uint8)
    with pytest.raises(OptionError, match=r"unknown pyiqa metric 'maen'\. Did you mean 'mean'"):
        pyiqa_metric.calculate_pyiqa(image, metric="maen", device="cpu")
    with pytest.raises(OptionError, match="l1 compares with a clean image"):
        pyiqa_metric.calculate_pyiqa(image, metric="l1", device="cpu")
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    pyiqa_metric._scorer.cache_clear()
    with pytest.raises(DependencyError, match=r"pip install basicsr-plugins\[pyiqa\]"):
        pyiqa_metric.calculate_pyiqa(image, metric="lpips", device="cpu")
