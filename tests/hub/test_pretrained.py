"""save_pretrained, from_pretrained, push_to_hub: every network and preset comes back as it was, and no other."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hub_networks import arguments_of, built

from basicsr_plugins import checkpoints, load_restorer
from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.nafnet_arch import NAFNet, NAFNetLocal
from basicsr_plugins.cli.main import main
from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.core.registration import provided
from basicsr_plugins.hub import pretrained

NAMES = sorted(provided("arch"))
PRESETS = [(name, preset) for name in NAMES for preset in getattr(provided("arch")[name], "presets", {})]
TINY = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return list(states[0]) == list(states[1]) and all(map(torch.equal, states[0].values(), states[1].values()))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return NAFNet(**TINY).eval()


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("name", NAMES)
def test_every_network_round_trip(name, tmp_path):
    network = built(name)
    network.save_pretrained(tmp_path / "net")
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    for again in (type(network).from_pretrained(tmp_path / "net"), checkpoints.load(tmp_path / "net")):
        assert type(again) is type(network)
        assert not again.training
        assert same(again, network)
        assert again.constructor_arguments() == json.loads(json.dumps(network.constructor_arguments()))
        if network.restores_images:
            x = torch.rand(1, 3, 24, 40)
            with torch.no_grad():
                assert torch.equal(again(x), network(x))


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_is_written_out(name, preset):
    """On the meta device: no memory, no values, the same names, shapes and arguments."""
    with torch.device("meta"):
        network = provided("arch")[name](**arguments_of(name, preset))
        written = json.loads(json.dumps(network.constructor_arguments()))
        again = type(network)(**written)
    assert "preset" not in written
    given = {
        key: value for key, value in type(network).presets[preset].items() if key not in arguments_of(name, preset)
    }
    assert {key: written[key] for key in given} == json.loads(json.dumps(given))
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (network, again)]
    assert shapes[0] == shapes[1]
    assert again.constructor_arguments() == written


@pytest.mark.slow
@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_round_trip(name, preset, tmp_path):
    network = built(name, preset)
    network.save_pretrained(tmp_path / "net")
    assert same(type(network).from_pretrained(tmp_path / "net"), network)


def test_every_network_is_one():
    assert all(issubclass(provided("arch")[name], HubNetwork) for name in NAMES)


def test_arguments_given_by_place_defaults_and_copies():
    network = NAFNet(3, 8, enc_blk_nums=[1], dec_blk_nums=[1])
    arguments = network.constructor_arguments()
    assert (arguments["width"], arguments["padding"], arguments["middle_blk_num"]) == (8, "zeros", 1)
    assert copy.deepcopy(network).constructor_arguments() == arguments
    arguments["enc_blk_nums"].append(5)
    given = [1]
    kept = NAFNet(3, 8, enc_blk_nums=given, dec_blk_nums=[1])
    given.append(5)
    assert kept.constructor_arguments()["enc_blk_nums"] == [1]
    assert network.constructor_arguments()["enc_blk_nums"] == [1]
    with pytest.raises(TypeError, match="widht"):
        NAFNet(widht=3)


def test_saving_draws_no_random_numbers(tiny, tmp_path):
    before = torch.get_rng_state()
    tiny.save_pretrained(tmp_path / "net")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_arguments_of_a_child_class_are_its_own():
    local = NAFNetLocal(**TINY, train_size=[1, 3, 48, 48])
    assert local.constructor_arguments()["train_size"] == [1, 3, 48, 48]


def test_what_a_caller_adds(folder):
    assert NAFNet.from_pretrained(str(folder), padding="reflect").padding == "reflect"
    with pytest.raises(OptionError, match="Did you mean 'padding'"):
        NAFNet.from_pretrained(folder, pading="reflect")
    with pytest.raises(CheckpointError, match="another variant"):
        NAFNet.from_pretrained(folder, width=8)


def test_another_class_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"holds a NAFNet, no NAFNetLocal: use NAFNet\.from_pretrained"):
        NAFNetLocal.from_pretrained(folder)


def test_restore_and_load_restorer_take_the_folder(folder, tmp_path, tiny):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert main(["restore", str(tmp_path / "a.png"), "--model", str(folder), "--device", "cpu"]) == 0
    restored = load_restorer(folder, device="cpu")(image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a_restored.png")), restored)


def test_config_json_decides_what_shapes_do_not_show(folder):
    config = json.loads((folder / "config.json").read_text())
    config["network_g"]["padding"] = "reflect"
    (folder / "config.json").write_text(json.dumps(config))
    assert NAFNet.from_pretrained(folder).padding == "reflect"
    assert checkpoints.load(folder).padding == "reflect"
    assert load_restorer(folder, device="cpu").model.network.padding == "reflect"


def test_weights_alone_say_what_they_are(folder, tiny):
    (folder / "config.json").unlink()
    assert same(NAFNet.from_pretrained(folder), tiny)
    assert same(checkpoints.load(folder), tiny)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", '{"network_g": {"width": 4}}', "the network's type"),
        ("config.json", '{"network_g": {"type": "NAFNet", "width": "four"}}', "cannot be built"),
        (
            "config.json",
            '{"network_g": {"type": "NAFNet", "width": 8, "enc_blk_nums": [1], "dec_blk_nums": [1]}}',
            "variant",
        ),
        ("model.safetensors", "<html>", "cannot be read as safetensors"),
        ("model.safetensors", None, "there is no model.safetensors"),
    ],
)
def test_broken_folders(folder, name, text, error):
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    for load in (NAFNet.from_pretrained, checkpoints.load):
        with pytest.raises(CheckpointError, match=error):
            load(folder)


def test_a_folder_of_others_is_recognised_by_load_alone(tmp_path, tiny):
    from safetensors.torch import save_file

    save_file(tiny.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"width": 4}')
    assert same(checkpoints.load(tmp_path), tiny)
    with pytest.raises(CheckpointError, match="does not say which arguments"):
        NAFNet.from_pretrained(tmp_path)
    with pytest.raises(OptionError, match=r"was not written by save_pretrained"):
        tiny.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"width": 4}'


def test_saving_again_replaces_weights_and_keeps_the_card(folder, tiny):
    (folder / "README.md").write_text("mine")
    other = built("Restormer")
    other.save_pretrained(folder)
    assert same(checkpoints.load(folder), other)
    assert (folder / "README.md").read_text() == "mine"
    (folder / "config.json").unlink()  # a kill between the two files
    tiny.save_pretrained(folder)
    assert same(NAFNet.from_pretrained(folder), tiny)


def test_a_kill_between_the_two_files_leaves_no_old_arguments(folder, monkeypatch):
    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "_write_text", killed)
    other = NAFNet(**TINY, padding="reflect")
    with pytest.raises(KeyboardInterrupt):
        other.save_pretrained(folder)
    again = NAFNet.from_pretrained(folder)
    assert again.padding == "reflect"
    assert same(again, other)


def test_a_changed_network_and_a_file_in_the_way(tmp_path, tiny):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="is a file; give a folder"):
        tiny.save_pretrained(tmp_path / "file")
    tiny.ending = torch.nn.Conv2d(4, 1, 3)
    with pytest.raises(OptionError, match=r"changed since it was built \(ending\.bias, 2 entries"):
        tiny.save_pretrained(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_an_argument_that_is_no_plain_value(tmp_path):
    class Odd(HubNetwork):
        def __init__(self, function: object) -> None:
            super().__init__()

    with pytest.raises(OptionError, match="argument function of Odd is no plain value"):
        Odd(print).save_pretrained(tmp_path / "odd")


def test_the_card(tmp_path, tiny):
    tiny.save_pretrained(tmp_path / "a", licence="apache-2.0")
    card = (tmp_path / "a" / "README.md").read_text()
    assert card.startswith('---\nlicense: "apache-2.0"\nlibrary_name: basicsr_plugins\n')
    assert "from basicsr_plugins.archs.nafnet_arch import NAFNet" in card
    assert "--model" in card
    built("SegmentationHead").save_pretrained(tmp_path / "b")
    card = (tmp_path / "b" / "README.md").read_text()
    assert "# license: say here which" in card
    assert "--model" not in card


def test_the_code_in_the_card_runs(folder, tiny, monkeypatch):
    code = (
        (folder / "README.md").read_text().split("```python\n")[1].split("```")[0].replace('"PLACE"', repr(str(folder)))
    )
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert same(names["network"], tiny)


class PretendedHub:
    """Keeps what is uploaded, and gives it back."""

    def __init__(self, folder: Path, held: tuple = (), fails: bool = False) -> None:
        self.folder, self.held, self.fails, self.calls = folder, held, fails, []

    def HfApi(self, **given):
        self.token = given["token"]
        return self

    def create_repo(self, repository, private, exist_ok):
        self.calls.append(("create", repository, private, exist_ok))
        if self.fails:
            raise ConnectionError("no route\nto the host")

    def file_exists(self, repository, name, revision):
        return name in self.held

    def upload_folder(self, repo_id, folder_path, commit_message, revision):
        self.calls.append(("upload", repo_id, commit_message, revision))
        for path in Path(folder_path).iterdir():
            self.folder.mkdir(exist_ok=True)
            (self.folder / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(commit_url="https://huggingface.co/me/net/commit/1")

    def snapshot_download(self, repository, allow_patterns, **options):
        self.calls.append(("download", repository, sorted(allow_patterns), options))
        if self.fails:
            raise ConnectionError("no route\nto the host")
        return str(self.folder)

    def hf_hub_download(self, repository, name, **options):
        return str(self.folder / name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = PretendedHub(tmp_path / "remote")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


def test_push_and_fetch(hub, tiny):
    assert tiny.push_to_hub("me/net", private=True, token="t", branch="b", message="m").endswith("commit/1")
    assert hub.calls == [("create", "me/net", True, True), ("upload", "me/net", "m", "b")]
    assert hub.token == "t"
    assert {path.name for path in hub.folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert same(NAFNet.from_pretrained("me/net", revision="v1", token="t"), tiny)
    _, repository, patterns, options = hub.calls[-1]
    assert (repository, patterns) == ("me/net", ["config.json", "model.safetensors"])
    assert (options["revision"], options["token"], options["local_files_only"]) == ("v1", "t", False)


def test_a_card_that_is_there_is_kept(hub, tiny):
    hub.held = ("README.md",)
    tiny.push_to_hub("me/net")
    assert {path.name for path in hub.folder.iterdir()} == {"config.json", "model.safetensors"}


def test_what_the_hub_refuses_is_one_sentence(hub, tiny):
    hub.fails = True
    for call in (lambda: tiny.push_to_hub("me/net"), lambda: NAFNet.from_pretrained("me/net")):
        with pytest.raises(DependencyError, match=r"^me/net cannot be .*: ConnectionError: no route\.$"):
            call()
    for wrong in ("net", "me/net/x", "../net"):
        with pytest.raises(OptionError, match="user/repository"):
            NAFNet.from_pretrained(wrong)
        with pytest.raises(OptionError, match="user/repository"):
            tiny.push_to_hub(wrong)


def test_without_the_package(monkeypatch, tiny):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"pip install basicsr-plugins\[hub\]"):
        tiny.push_to_hub("me/net")


def test_networks_do_not_import_huggingface_hub():
    code = "import sys, basicsr_plugins.archs.nafnet_arch; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
