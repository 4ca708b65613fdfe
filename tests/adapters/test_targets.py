"""Which layers get an adapter."""

from __future__ import annotations

import logging

import pytest
from torch import nn

from basicsr_plugins.adapters import select_targets
from basicsr_plugins.core.errors import OptionError


def test_presets(net):
    assert select_targets(net) == ["pointwise", "attn_out", "gate"]
    assert select_targets(net, "pointwise") == ["pointwise", "attn_out", "gate"]
    assert select_targets(net, "attention") == ["attn_out"]
    assert select_targets(net, "all") == ["first", "down", "pointwise", "attn_out", "gate", "output"]


def test_depthwise_convolutions_are_left_out_with_a_log_line(net, caplog):
    with caplog.at_level(logging.INFO, logger="basicsr"):
        select_targets(net, "all")
    assert "1 depthwise or grouped convolutions left out (depthwise ...)" in caplog.text
    with pytest.raises(OptionError, match="grouped convolution"):
        select_targets(net, "dep.*")


def test_dilated_and_not_zero_padded_convolutions_are_left_out_of_presets(caplog):
    net = nn.Sequential(
        nn.Conv2d(3, 3, 3, dilation=2), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.Conv2d(3, 3, 3)
    )
    with caplog.at_level(logging.INFO, logger="basicsr"):
        assert select_targets(net, "all") == ["2"]
    assert "2 dilated or not zero-padded" in caplog.text
    assert select_targets(net, ["0", "2"]) == ["0", "2"]


def test_a_network_may_say_what_its_adapters_take(net):
    net.adapter_layers = r"(?!gate).*"
    assert select_targets(net) == ["pointwise", "attn_out"]
    assert select_targets(net, "pointwise") == ["pointwise", "attn_out", "gate"]


def test_patterns_match_whole_names(net):
    assert select_targets(net, "p.*|g.*") == ["pointwise", "gate"]
    assert select_targets(net, ["gate", "first"]) == ["first", "gate"]
    with pytest.raises(OptionError, match=r"'poinwise' matches no layer.*'pointwise'"):
        select_targets(net, "poinwise")
    with pytest.raises(OptionError, match="not a regular expression"):
        select_targets(net, "(")


def test_layers_inside_multihead_attention_cannot_be_reached():
    net = nn.ModuleDict({"mha": nn.MultiheadAttention(4, 1), "fc": nn.Linear(4, 4)})
    assert select_targets(net) == ["fc"]
    with pytest.raises(OptionError, match="MultiheadAttention"):
        select_targets(net, "mha.out_proj")


def test_nothing_to_adapt():
    with pytest.raises(OptionError, match=r"no nn.Linear or nn.Conv2d"):
        select_targets(nn.Sequential(nn.ReLU()))
    with pytest.raises(OptionError, match="selects no layer of Sequential"):
        select_targets(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))
