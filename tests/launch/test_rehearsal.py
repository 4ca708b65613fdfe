"""What passes the check runs: the check builds what the run builds and makes one iteration of it."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import tiny_runs
import torch
from torch import nn

import basicsr_plugins
from basicsr_plugins import checkpoints
from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import CheckpointError, DataError, DependencyError, OptionError
from basicsr_plugins.launch.checking import check_run


@pytest.fixture(autouse=True)
def _images(tmp_path):
    basicsr_plugins.register()
    tiny_runs.write_images(tmp_path / "images")


def options(tmp_path, recipe="plain", **changes):
    return tiny_runs.parsed_options(tmp_path, recipe, **changes)


PSNR = {"type": "calculate_psnr", "crop_border": 0}
#: What used to be accepted and to end in a traceback after folders were made: changes, the error, its beginning.
CANNOT_RUN = [
    ({"network_g": {"num_in_ch": 1}}, OptionError, "network_g: it does not take an input of shape (2, 3, 16, 16)"),
    ({"network_g": {"num_out_ch": 4}}, OptionError, "network_g: it does not take an input"),
    ({"network_g": {"upscale": 2}}, OptionError, "train.pixel_opt: it cannot compare output and gt"),
    ({"network_g": {"type": "UNet", "num_in_ch": 3, "num_out_ch": 1}}, OptionError, "network_g"),
    ({"train": {"pixel_opt": {"reduction": "avg"}}}, OptionError, "train.pixel_opt: this loss cannot be built"),
    (
        {"train": {"extra_losses": {"l_x": {"type": "L1Loss", "reduction": "avg"}}}},
        OptionError,
        "train.extra_losses.l_x: this loss cannot be built",
    ),
    ({"train": {"pixel_opt": None}}, OptionError, "train: no loss is set"),
    ({"datasets": {"train": {"batch_size_per_gpu": 5}}}, DataError, "datasets.train: 4 samples"),
    ({"datasets": {"train": {"dataset_enlarge_ratio": "auto"}}}, OptionError, "datasets.train.dataset_enlarge_ratio"),
    ({"datasets": {"train": {"dataset_enlarge_ratio": 0}}}, OptionError, "datasets.train.dataset_enlarge_ratio"),
    ({"datasets": {"train": {"persistent_workers": True}}}, OptionError, "datasets.train.persistent_workers"),
    ({"datasets": {"train": {"prefetch_mode": "cuda"}}}, OptionError, "datasets.train.pin_memory"),
    (
        {"datasets": {"train": {"prefetch_mode": "cuda", "pin_memory": True}}},
        OptionError,
        "datasets.train.prefetch_mode: there is no GPU here",
    ),
    ({"logger": {"wandb": {"project": "x"}}}, OptionError, "logger.wandb: it is fed by TensorBoard's log"),
    ({"name": "../../x"}, OptionError, "name: '../../x' becomes the name of a folder"),
    ({"name": "a/b"}, OptionError, "name: 'a/b' becomes the name of a folder"),
    ({"name": ".."}, OptionError, "name: '..' becomes the name of a folder"),
    ({"name": "x" * 200}, OptionError, "name: 'xxx"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), CANNOT_RUN, ids=[case[2][:40] for case in CANNOT_RUN])
def test_what_cannot_run_does_not_pass(tmp_path, changes, kind, message):
    if torch.cuda.is_available() and "no GPU" in message:
        pytest.skip("there is one")
    with pytest.raises(kind) as caught:
        check_run(options(tmp_path, **changes))
    assert str(caught.value).startswith(message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


@pytest.mark.parametrize("package", ["wandb", "tensorboard", "pyiqa"])
def test_a_package_that_is_missing(tmp_path, monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    monkeypatch.setitem(sys.modules, package, None)
    logger = {"use_tb_logger": True, **({"wandb": {"project": "x"}} if package == "wandb" else {})}
    given = options(tmp_path, logger=logger if package != "pyiqa" else {})
    given["datasets"]["val"] = {**tiny_runs.validation_set(tmp_path / "images"), "phase": "val"}
    given["val"] = {"val_freq": 2, "metrics": {"q": {"type": "calculate_pyiqa"} if package == "pyiqa" else PSNR}}
    with pytest.raises(DependencyError, match=rf"^(logger|val\.metrics\.q)\S*: .*{package}"):
        check_run(given)


def bad_weights(path, kind):
    if kind == "junk":
        path.write_bytes(b"junk" * 100)
    elif kind == "another network":
        checkpoints.save({"params": nn.Linear(2, 2).state_dict()}, path)
    else:
        checkpoints.save({"params": {}}, path)
    return str(path)


@pytest.mark.parametrize("kind", ["junk", "another network", "nothing"])
def test_pretrained_weights_that_do_not_fit(tmp_path, kind):
    file = bad_weights(tmp_path / "weights.pth", kind)
    with pytest.raises(CheckpointError, match=r"^path\.pretrain_network_g: "):
        check_run(options(tmp_path, path={"pretrain_network_g": file}))


def test_a_recipe_whose_second_loss_starts_late_is_tried_as_it_will_be(tmp_path):
    class Widened(nn.Module):
        inputs = ("target",)

        def terms(self, output, target):
            return {"l_late": (output - target[..., :-1]).mean()}

    registration.provides("loss", "WidenedLoss")(Widened)
    late = {"loss": {"type": "WidenedLoss"}, "guard": {"start_iter": 2001}, "negatives": None}
    given = options(tmp_path, train={"total_iter": 5000, "spn_opt": {k: v for k, v in late.items() if v}})
    try:
        with pytest.raises(OptionError, match=r"^train: an iteration on a batch of shape \(2, 3, 16, 16\) fails"):
            check_run(given)
    finally:
        registration._provided["loss"].pop("WidenedLoss")
        registration._registries["loss"]._obj_map.pop("WidenedLoss")


def test_a_network_that_needs_more_than_a_small_patch_is_tried_on_the_true_one(tmp_path):
    seen = []

    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            seen.append(tuple(x.shape[-2:]))
            if min(x.shape[-2:]) < 80:
                raise ValueError("too small")
            return self.body(x)

    registration.provides("arch", "Choosy")(Choosy)
    tiny_runs.write_images(tmp_path / "images", size=100)
    try:
        for side, runs in ((90, True), (70, False)):
            given = options(tmp_path, datasets={"train": {"gt_size": side}})
            given["network_g"] = {"type": "Choosy"}
            seen.clear()
            if runs:
                check_run(given)
                assert seen[0] == (58, 58)  # 90 = 58 + 32
                assert seen[-1] == (90, 90)
            else:
                with pytest.raises(OptionError, match=r"^network_g: it does not .*70, 70\): ValueError: too small"):
                    check_run(given)
    finally:
        registration._provided["arch"].pop("Choosy")
        registration._registries["arch"]._obj_map.pop("Choosy")


def test_a_metric_that_fails_is_named(tmp_path):
    def calculate_broken(img, img2):
        return img.no_such_attribute

    given = options(tmp_path)
    given["datasets"]["val"] = {**tiny_runs.validation_set(tmp_path / "images"), "phase": "val"}
    registration.provides("metric")(calculate_broken)
    given["val"] = {"val_freq": 1, "metrics": {"p": PSNR, "b": {"type": "calculate_broken", "better": "lower"}}}
    try:
        with pytest.raises(OptionError, match=r"^val\.metrics\.b: this metric fails: AttributeError"):
            check_run(given)
    finally:
        registration._provided["metric"].pop("calculate_broken")
        registration._registries["metric"]._obj_map.pop("calculate_broken")


def test_two_validation_sets_of_one_name(tmp_path):
    given = options(tmp_path)
    for phase in ("val", "val_2"):
        given["datasets"][phase] = {**tiny_runs.validation_set(tmp_path / "images"), "phase": "val"}
    with pytest.raises(OptionError, match=r"^datasets\.val_2\.name: 'v' is the name of datasets\.val too"):
        check_run(given)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("train", "precision", "bf16"), ("train", "save_best", True), ("train", "accumulate", 2), ("val", "tile", 64)],
)
def test_an_option_of_ours_that_a_stock_model_passes_over_is_refused(tmp_path, section, key, value):
    given = options(tmp_path, model_type="SRModel", val={"val_freq": 2})
    check_run(given)
    given[section] = {**given[section], key: value}
    with pytest.raises(OptionError, match=rf"^{section}\.{key}: SRModel is BasicSR's own model and passes over"):
        check_run(given)


@pytest.mark.parametrize("value", [{3: 4}, {True: 1}, {None: 1}])
@pytest.mark.parametrize("place", ["network_g", "train", "datasets"])
def test_keys_that_are_no_text(tmp_path, place, value):
    given = options(tmp_path)
    given[place] = {**given[place], **value}
    with pytest.raises(OptionError, match=rf"^{place}: the key .* expected text"):
        check_run(given)


@pytest.mark.parametrize("recipe", tiny_runs.RECIPES)
def test_the_log_is_as_if_nothing_had_been(tmp_path, recipe, capsys):
    import logging

    from basicsr.utils import logger as stock_logger

    before = dict(stock_logger.initialized_logger), logging.getLogger("basicsr").disabled
    check_run(options(tmp_path, recipe))
    assert (dict(stock_logger.initialized_logger), logging.getLogger("basicsr").disabled) == before
    assert "trains" not in capsys.readouterr().err


def stock_parser(monkeypatch, tmp_path, given):
    from basicsr.utils import options as stock_options

    file = tiny_runs.write_options(tmp_path / "x.yml", given)
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(file)])
    return stock_options.parse_options(str(tmp_path))[0]


@pytest.mark.parametrize("name", ["tiny", "my_debug_run"])
@pytest.mark.parametrize("left_out", ["logger", "num_gpu", "path", "val"])
@pytest.mark.parametrize("empty", [False, True])
def test_documented_defaults_hold_under_the_stock_script(tmp_path, monkeypatch, name, left_out, empty):
    given = tiny_runs.option_file(tmp_path / "images", name=name, val={"val_freq": None, "pbar": False})
    given.pop(left_out)
    if empty and left_out != "num_gpu":
        given[left_out] = None
    if left_out != "num_gpu":
        given["num_gpu"] = 0
    opt = stock_parser(monkeypatch, tmp_path, given)
    assert opt["num_gpu"] == (0 if not torch.cuda.is_available() else opt["num_gpu"])
    debug = "debug" in name
    assert opt["logger"]["use_tb_logger"] is False
    if left_out == "logger":
        assert opt["logger"]["print_freq"] == (1 if debug else 100)
        assert opt["logger"]["save_checkpoint_freq"] == (8 if debug else 5000)
    if left_out != "val":
        assert opt["val"]["val_freq"] == (8 if debug else float("inf"))


def test_a_validation_interval_that_is_not_set_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = tiny_runs.option_file(tmp_path / "images", val={"val_freq": None, "metrics": {"psnr": PSNR}})
    given["datasets"]["val"] = tiny_runs.validation_set(tmp_path / "images")
    file = tiny_runs.write_options(tmp_path / "x.yml", given)
    assert tiny_runs.run_command("train", "-opt", file) == 0, capsys.readouterr().err
