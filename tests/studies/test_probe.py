"""The kNN probe: splits, features, the control, and the command with its files."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from basicsr_plugins.cli.main import main
from basicsr_plugins.core.errors import DataError
from basicsr_plugins.studies import probe_run
from basicsr_plugins.studies.probe import SEEDS, initialise_randomly, probe, read_label_folders, tap_features

OPTIONS = "network_g: {type: NAFNet, width: 4, enc_blk_nums: [1, 1], dec_blk_nums: [1, 1]}\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Twelve smooth pictures, dark in one class and noisy in the other."""
    root = tmp_path_factory.mktemp("classes")
    generator = np.random.default_rng(0)
    for index in range(12):
        image = cv2.resize(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8), (40, 36)).astype(float)
        noisy = np.clip(image + generator.normal(0, 60, image.shape), 0, 255)
        for name, changed in (("dark", image * 0.1), ("noise", noisy)):
            (root / name).mkdir(exist_ok=True)
            cv2.imwrite(str(root / name / f"{index:02d}.png"), changed.astype(np.uint8))
    return root


def test_statistics_of_the_probed_network_stand_still():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    found = tap_features(network, ["1"], torch.rand(4, 3, 8, 8), batch=2)["1"]
    assert torch.equal(network[1].running_mean, torch.zeros(4))
    assert found.shape == (4, 4 * 6 * 6)


def test_averaged_weights_are_probed_where_a_checkpoint_has_them(tmp_path):
    network = nn.Conv2d(3, 3, 1)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    averaged = {name: value + 1 for name, value in state.items()}
    torch.save({"params": state, "params_ema": averaged}, tmp_path / "x.pth")
    for key, expected in ((None, averaged), ("params", state)):
        probe_run._load(network, str(tmp_path / "x.pth"), key)
        assert torch.equal(network.weight, expected["weight"])


def test_separate_clusters_are_found_and_noise_is_not():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    clusters = generator.normal(size=(90, 4)) * 0.1 + labels[:, None]
    found = probe("clusters", clusters, labels)
    assert found.accuracies == [1.0] * 5
    assert np.array_equal(found.confusion, np.diag([50, 50, 50])), "ten of each class tested, in five splits"
    chance = probe("nothing", generator.normal(size=(90, 4)), labels)
    assert np.mean(chance.accuracies) < 0.55
    assert len(SEEDS) == 5


def test_versions_of_a_picture_stay_on_one_side():
    labels = np.tile(np.arange(2), 30)
    pictures = np.repeat(np.arange(30), 2)
    # the features show the picture alone: with its twin in the training part, a neighbour always is of the other class
    features = pictures[:, None] * 100.0 + np.random.default_rng(0).normal(size=(60, 1)) * 1e-3
    leaking = probe("leaking", features, labels, neighbours=1)
    fair = probe("fair", features, labels, neighbours=1, groups=pictures)
    assert np.mean(leaking.accuracies) < 0.4 < np.mean(fair.accuracies)


def test_random_initialisation_is_the_published_one_and_repeats():
    first, second = (nn.Sequential(nn.Conv2d(3, 64, 3), nn.Linear(8, 8)) for _ in range(2))
    initialise_randomly(first, seed=3)
    initialise_randomly(second, seed=3)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not first[0].bias.any()
    bound = (6 / (5 * 27)) ** 0.5  # uniform He with a = 2: sqrt(6 / ((1 + a^2) fan_in))
    assert first[0].weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_features_are_those_of_the_tapped_module():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    images = torch.rand(5, 3, 8, 10)
    found = tap_features(network, ["1"], images, batch=2)["1"]
    with torch.no_grad():
        expected = network[1](network[0](images))
    np.testing.assert_allclose(found, expected.flatten(1).numpy(), rtol=1e-4, atol=1e-6)
    pooled = tap_features(network, ["1"], images, pool="mean")["1"]
    np.testing.assert_allclose(pooled, expected.mean(dim=(-2, -1)).numpy(), rtol=1e-4, atol=1e-6)


def test_crops_are_rgb_and_from_the_centre(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(3):
            image = np.zeros((10, 12, 3), dtype=np.uint8)
            image[4:6, 5:7] = (0, 0, 255)  # red, as OpenCV orders it
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), image)
    found = read_label_folders({"a": tmp_path / "a", "b": tmp_path / "b"}, 2, 100)
    assert found.images.shape == (6, 3, 2, 2)
    assert found.images[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(DataError, match=r"0.png: 12 x 10 pixels, the crop needs 11"):
        read_label_folders({"a": tmp_path / "a", "b": tmp_path / "b"}, 11, 100)


def test_the_command_writes_table_confusion_and_tsne(folders, tmp_path, capsys):
    from basicsr_plugins.archs.nafnet_arch import NAFNet

    option_file = tmp_path / "net.yml"
    option_file.write_text(OPTIONS)
    weights = tmp_path / "trained.pth"
    torch.save({"params": NAFNet(width=4, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]).state_dict()}, weights)
    code = main([
        "probe", "-opt", str(option_file), "--data", str(folders), "--weights", f"mine={weights}", "--crop", "32",
        "--tsne", "250", "--layers", "decoders.1", "intro", "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    assert code == 0
    shown = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "probe.json").read_text())
    names = [result["features"] for result in content["results"]]
    assert names == [
        "random init: decoders.1", "random init: intro", "mine: decoders.1", "mine: intro", "raw pixels",
    ]  # fmt: skip
    assert content["classes"] == ["dark", "noise"]
    assert content["neighbours"] == 5
    assert content["seeds"] == list(SEEDS)
    for result in content["results"]:
        assert len(result["accuracies"]) == 5
        assert result["features"] in shown
    assert max(np.mean(result["accuracies"]) for result in content["results"]) > 0.8, "dark is easily told"
    for name in ("confusion.png", "tsne.png"):
        assert cv2.imread(str(tmp_path / "out" / name)) is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--layers", "decoder.1"], "decoders.1"),
        (["--data", "dark=nowhere", "noise=nowhere"], "there is no folder nowhere"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--no-random", "--no-pixels"], "nothing is left to probe"),
        (["--neighbours", "0"], "--neighbours: must be at least 1"),
    ],
)
def test_what_is_wrong_is_one_message(folders, tmp_path, capsys, changes, message):
    option_file = tmp_path / "net.yml"
    option_file.write_text(OPTIONS)
    given = ["probe", "-opt", str(option_file), "--crop", "32", "--out", str(tmp_path)]
    if "--data" not in changes:
        given += ["--data", f"dark={folders / 'dark'}", f"noise={folders / 'noise'}"]
    assert main([*given, *changes]) == 1
    assert message in capsys.readouterr().err
