"""Scores and pictures of degradation maps."""

from __future__ import annotations

import math

import numpy as np

from basicsr_plugins.metrics.segmentation import PALETTE, colour_map, mean_iou


def test_mean_iou_by_hand():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])  # the third class occurs nowhere
    assert mean_iou(confusion) == (3 / 6 + 4 / 7) / 2
    assert mean_iou(np.diag([5, 2])) == 1
    assert math.isnan(mean_iou(np.zeros((2, 2))))


def test_each_class_has_its_colour():
    labels = np.arange(12).reshape(3, 4)
    picture = colour_map(labels, 12)
    assert picture.shape == (3, 4, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[0, 1]) == PALETTE[1]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 12
