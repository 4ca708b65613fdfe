"""Options declared once: every type, every slip, the message with its path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional, Union

import pytest
import torch
from torch import nn

from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import (
    check_call,
    check_value,
    fraction,
    non_negative,
    option,
    parse,
    positive,
    to_type,
)


@dataclass
class Crop:
    root: str = option(help="folder of the images")
    gt_size: int = option(128, "side of the crop", check=positive)
    share: float = option(0.5, check=fraction)
    mode: Literal["train", "val"] = option("train")
    layers: Optional[list[str]] = option(None)
    ranges: tuple[float, float] = option((0.0, 1.0))
    weights: dict[str, float] = option({})
    limit: Union[int, Literal["auto"]] = option("auto")
    flip: bool = option(True)


def test_defaults_and_conversions():
    crop = parse(Crop, {"root": "a", "share": 1, "ranges": [0, 2], "weights": {"a": 1}}, "datasets.train")
    assert (crop.gt_size, crop.share, crop.ranges, crop.weights) == (128, 1.0, (0.0, 2.0), {"a": 1.0})
    assert isinstance(crop.share, float)
    assert isinstance(crop.weights["a"], float)
    other = parse(Crop, {"root": "a"}, "datasets.train")
    other.weights["x"] = 1.0
    assert parse(Crop, {"root": "a"}, "datasets.train").weights == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gt_siez": 64}, r"^datasets\.train\.gt_siez: unknown option 'gt_siez'\. Did you mean 'gt_size'"),
        ({}, r"^datasets\.train\.root: this option is required\. It is the folder of the images"),
        ({"root": 3}, r"root: expected text, got 3 \(int\)"),
        ({"gt_size": 64.0}, "gt_size: expected a whole number"),
        ({"gt_size": True}, "gt_size: expected a whole number, got True"),
        ({"gt_size": "64"}, "gt_size: expected a whole number"),
        ({"gt_size": 0}, r"gt_size: must be .*got 0"),
        ({"share": "1e-4"}, "YAML reads 1e-4 as text: write !!float 1e-4"),
        ({"share": 1.5}, "between 0 and 1"),
        ({"mode": "test"}, "one of 'train', 'val'"),
        ({"layers": "a"}, "a list or nothing"),
        ({"layers": ["a", 1]}, "a list in which each value is text"),
        ({"ranges": [1]}, "a list of 2 values"),
        ({"weights": [1]}, "expected a mapping"),
        ({"weights": {"a": "b"}}, "a mapping in which each value is a number"),
        ({"limit": "all"}, "a whole number or one of 'auto'"),
        ({"flip": 1}, "true or false"),
        ({"flip": "yes"}, "true or false"),
    ],
)
def test_every_slip(given, message):
    whole = given if "root" in given or not given else {"root": "a", **given}
    with pytest.raises(OptionError, match=message):
        parse(Crop, whole, "datasets.train")


def test_what_is_no_mapping_and_what_belongs_to_others():
    with pytest.raises(OptionError, match="train: expected a mapping"):
        parse(Crop, [1], "train")
    assert parse(Crop, {"root": "a", "type": "X"}, "train", ignore=["type"]).root == "a"


class Loss(nn.Module):
    def __init__(self, loss_weight: float = 1.0, layers: Optional[list[str]] = None, *, steps: int, anything=None):
        super().__init__()


def test_constructors():
    checked = check_call(Loss, {"loss_weight": 2, "steps": 3, "anything": object}, "train.pixel_opt")
    assert checked == {"loss_weight": 2.0, "steps": 3, "anything": object}
    for given, message in (
        ({"los_weight": 1, "steps": 1}, r"train\.pixel_opt\.los_weight: .*Did you mean 'loss_weight'"),
        ({}, r"train\.pixel_opt\.steps: this option is required"),
        ({"steps": "3"}, r"train\.pixel_opt\.steps: expected a whole number"),
    ):
        with pytest.raises(OptionError, match=message):
            check_call(Loss, given, "train.pixel_opt")


def test_open_ended_functions_take_any_name():
    def function(a: int, **kwargs: Any) -> None: ...

    assert check_call(function, {"a": 1, "b": "x"}, "x") == {"a": 1, "b": "x"}
    with pytest.raises(OptionError):
        check_call(function, {"a": "1"}, "x")


def test_a_float_or_a_tensor_is_a_float_in_an_option_file():
    assert to_type("1e-4", Union[float, torch.Tensor])[1]
    assert to_type(0.1, Union[float, torch.Tensor]) == (0.1, "")
    assert to_type("x", Union[float, torch.Tensor])[1] == to_type("x", float)[1]


@pytest.mark.parametrize(
    ("check", "good", "bad"), [(positive, 1, 0), (non_negative, 0, -1), (fraction, 1.0, 1.01), (fraction, 0, -0.1)]
)
def test_checks(check, good, bad):
    assert check_value(good, float, "x", check) == good
    with pytest.raises(OptionError, match="^x: must"):
        check_value(bad, float, "x", check)


@dataclass
class Inner:
    size: int = option(1, "size")


@dataclass
class Outer:
    inner: Optional[Inner] = option(None, "section")


def test_a_section_inside_a_section_is_parsed_by_its_own_schema():
    assert parse(Outer, {}, "train").inner is None
    assert parse(Outer, {"inner": {"size": 3}}, "train").inner == Inner(3)
    with pytest.raises(OptionError, match=r"train\.inner\.sise: .*'size'"):
        parse(Outer, {"inner": {"sise": 3}}, "train")
    with pytest.raises(OptionError, match=r"train\.inner: expected a mapping of options or nothing"):
        parse(Outer, {"inner": 3}, "train")
