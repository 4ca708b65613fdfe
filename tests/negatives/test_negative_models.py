"""NegativeModels: equation 1 at each step, the four modes, selection, state, ranks and bad input."""

from __future__ import annotations

import copy
import inspect
import sys

import pytest
import torch
import two_ranks
from torch import nn

from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.negatives import NegativeModels, fresh_copy, output_spread
from basicsr_plugins.negatives.options import check_negatives


class Net(nn.Module):
    """A convolution, a BatchNorm (buffers) and a parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.gain = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return self.norm(self.conv(x)) * self.gain


def weights(network):
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def wander(network, seed):
    """Move the network's weights and run a batch through its BatchNorm, as a training step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        network.train()(torch.randn(2, 3, 4, 4, generator=generator))


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.9, 1.0, [0.1, 0.5, 0.9]])
def test_equation_1_at_every_iteration(decay):
    net = Net()
    steps = [1, 2, 5]
    negatives = NegativeModels(net, steps, decay)
    decays = decay if isinstance(decay, list) else [decay] * 3
    expected = [weights(net)] * 3
    for iteration in range(1, 13):
        wander(net, iteration)
        due = negatives.update(net)
        assert due == [index for index, step in enumerate(steps) if iteration % step == 0]
        for index in due:
            expected[index] = decays[index] * expected[index] + (1 - decays[index]) * weights(net)
        for index in range(3):
            torch.testing.assert_close(weights(negatives.models[index]), expected[index])


def test_buffers_are_copied_when_the_weights_move():
    net = Net()
    negatives = NegativeModels(net, [2])
    before = negatives.models[0].module.norm.running_mean.clone()
    wander(net, 0)
    negatives.update(net)
    torch.testing.assert_close(negatives.models[0].module.norm.running_mean, before, rtol=0, atol=0)
    wander(net, 1)
    negatives.update(net)
    for own, source in zip(negatives.models[0].module.buffers(), net.buffers()):
        torch.testing.assert_close(own, source, rtol=0, atol=0)


def test_built_on_mmengines_averaged_model():
    from mmengine.model import BaseAveragedModel

    assert all(isinstance(model, BaseAveragedModel) for model in NegativeModels(Net(), [3, 4]).models)


def test_outputs_are_the_negatives_answers_without_a_graph():
    net = Net()
    negatives = NegativeModels(net, [1, 2])
    wander(net, 0)
    negatives.update(net)
    x = torch.rand(2, 3, 6, 5, requires_grad=True)
    out = negatives(x)
    assert out.shape == (2, 2, 3, 6, 5)
    assert not out.requires_grad
    assert not out.is_inference()  # losses may save it for their backward pass
    for index in range(2):
        torch.testing.assert_close(out[index], negatives.models[index].module(x).detach())
    assert not any(parameter.requires_grad for parameter in negatives.parameters())
    assert not any(module.training for module in negatives.train().modules())
    assert net.training


def test_start_mixes_a_fresh_network_in():
    net = Net()
    wander(net, 0)
    fresh = fresh_copy(net, Net, seed=4)
    negatives = NegativeModels(net, [7], start=0.25, factory=Net, seed=4)
    torch.testing.assert_close(weights(negatives.models[0]), 0.25 * weights(fresh) + 0.75 * weights(net))
    torch.testing.assert_close(weights(NegativeModels(net, [7]).models[0]), weights(net))


def test_random_negatives_differ_never_move_and_leave_torchs_generator_alone():
    net = Net()
    wander(net, 0)
    state = torch.get_rng_state()
    negatives = NegativeModels(net, mode="random", count=2, factory=Net)
    assert torch.equal(torch.get_rng_state(), state)
    before = [weights(model) for model in negatives.models]
    assert not torch.equal(*before)
    assert not torch.equal(before[0], weights(net))
    for iteration in range(3):
        wander(net, iteration)
        assert negatives.update(net) == []
    assert all(torch.equal(weights(model), was) for model, was in zip(negatives.models, before))
    assert negatives.ready
    # without a factory: every layer that can reset itself does
    reset = NegativeModels(net, mode="random").models[0].module
    assert not torch.equal(reset.conv.weight, net.conv.weight)
    assert torch.equal(reset.gain, net.gain)


@pytest.mark.parametrize("key", ["params", "params_ema", None])
def test_pretrained_negatives_come_from_files_and_stay(key, tmp_path):
    other, net = Net(), Net()
    wander(other, 5)
    state = other.state_dict()
    torch.save({key: state} if key else state, tmp_path / "net_g.pth")
    negatives = NegativeModels(net, mode="pretrained", pretrained=str(tmp_path / "net_g.pth"))
    assert len(negatives) == 1
    wander(net, 1)
    negatives.update(net)
    torch.testing.assert_close(weights(negatives.models[0]), weights(other), rtol=0, atol=0)
    torch.save({"params": nn.Linear(2, 2).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit Net"):
        NegativeModels(net, mode="pretrained", pretrained=[str(tmp_path / "other.pth")])


def test_adaptive_replaces_one_in_turn_when_the_error_spreads():
    net = Net()
    negatives = NegativeModels(net, mode="adaptive", count=2, threshold=0.1)
    flat = torch.rand(2, 3, 8, 8)
    spread = flat + 0.2 * torch.randn_like(flat)
    assert output_spread(spread, flat) == pytest.approx((2 * (spread - flat)).flatten(1).std(dim=1).mean().item())
    wander(net, 0)
    assert negatives.update(net, flat + 0.3, flat) == []  # a constant error has no spread
    assert negatives.update(net, spread, flat) == [0]
    assert negatives.update(net, spread, flat) == [1]
    assert negatives.update(net, spread, flat) == [0]
    torch.testing.assert_close(weights(negatives.models[1]), weights(net), rtol=1e-2, atol=1e-2)  # decay 0.001
    higher = NegativeModels(net, mode="adaptive", count=2, threshold=10.0)
    assert higher.update(net, spread, flat) == []
    with pytest.raises(OptionError, match="needs the output and the target"):
        negatives.update(net)


def test_ready_once_the_largest_step_has_passed():
    net = Net()
    negatives = NegativeModels(net, [2, 3])
    assert not negatives.ready
    for expected in (False, False, True, True):
        negatives.update(net)
        assert negatives.ready is expected


@pytest.mark.parametrize("selection", ["cycle", "random"])
def test_fewer_per_step_is_an_unbiased_estimate(selection):
    net = Net()
    negatives = NegativeModels(net, [1, 2, 3, 4], negatives_per_step=1, selection=selection)
    every = NegativeModels(net, [1, 2, 3, 4])
    with torch.no_grad():
        for index, (one, other) in enumerate(zip(negatives.models, every.models)):
            one.module.gain.add_(index)
            other.module.gain.add_(index)
    rounds = 8 if selection == "cycle" else 4000
    chosen = []
    for _ in range(rounds):
        chosen += negatives.chosen
        negatives.iteration += 1
    if selection == "random":
        other = NegativeModels(net, [1, 2, 3, 4], negatives_per_step=1, selection=selection, seed=1)
        drawn = []
        for _ in range(40):
            drawn += other.chosen
            other.iteration += 1
        assert drawn != chosen[:40], "the seed decides"
    counts = [chosen.count(index) / rounds for index in range(4)]
    assert counts == pytest.approx([0.25] * 4, abs=0 if selection == "cycle" else 0.03)
    x = torch.rand(1, 3, 4, 4)
    negatives.iteration = 0
    outputs = []
    for _ in range(4):
        outputs.append(negatives(x)[0])
        negatives.iteration += 1
    if selection == "cycle":
        torch.testing.assert_close(torch.stack(outputs).mean(0), every(x).mean(0))


def test_state_resumes_bit_identically():
    net = Net()
    options = {"steps": [2, 3, 4], "negatives_per_step": 2, "selection": "random", "start": 0.1}
    negatives = NegativeModels(net, **options)
    for iteration in range(5):
        wander(net, iteration)
        negatives.update(net)
    saved, saved_net = copy.deepcopy(negatives.state_dict()), copy.deepcopy(net)
    resumed = NegativeModels(Net(), **options, seed=0)
    resumed.load_state_dict(saved)
    chosen = []
    for owner, network in ((negatives, net), (resumed, saved_net)):
        picks = []
        for iteration in range(5, 12):
            picks.append(owner.chosen)
            wander(network, iteration)
            owner.update(network)
        chosen.append(picks)
    assert chosen[0] == chosen[1]
    for one, other in zip(negatives.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(one, other)


def test_state_is_safe_to_load(tmp_path):
    negatives = NegativeModels(Net(), [2, 3])
    torch.save(negatives.state_dict(), tmp_path / "negatives.pth")
    negatives.load_state_dict(torch.load(tmp_path / "negatives.pth", weights_only=True))


def test_state_of_other_negatives_is_refused():
    state = NegativeModels(Net(), [2, 3]).state_dict()
    with pytest.raises(CheckpointError, match=r"steps \[2, 3\], the options say mode 'history' with steps \[2\]"):
        NegativeModels(Net(), [2]).load_state_dict(state)


def test_wrapped_networks():
    net = Net()
    negatives = NegativeModels(nn.DataParallel(net), [1])
    before = weights(net)
    wander(net, 0)
    negatives.update(nn.DataParallel(net))
    torch.testing.assert_close(weights(negatives.models[0]), 0.1 * before + 0.9 * weights(net))


def test_networks_that_compute_their_weights_in_hooks():
    net = nn.utils.spectral_norm(nn.Conv2d(3, 3, 3, padding=1))
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(NegativeModels(net, [1])(x)[0], net.eval()(x).detach())


def test_what_is_frozen_stays_bit_equal():
    net = Net()
    wander(net, 3)
    negatives = NegativeModels(net, [1], decay=0.3)
    for _ in range(5):
        negatives.update(net)
    assert torch.equal(weights(negatives.models[0]), weights(net))


def test_precision_and_memory_order():
    net = Net().eval()
    x = torch.rand(1, 3, 8, 8)
    exact = NegativeModels(net, [1])(x)
    lower = NegativeModels(net, [1], precision="bf16")(x)
    assert lower.dtype == torch.float32
    assert not torch.equal(lower, exact)
    torch.testing.assert_close(lower, exact, rtol=0.05, atol=0.05)
    ordered = NegativeModels(net, [1], channels_last=True)
    torch.testing.assert_close(ordered(x), exact)
    convolutions = [module for module in ordered.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)
    assert NegativeModels(nn.Conv2d(3, 3, 3), [1], precision="bf16")(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):  # None follows the network, fp32 does not
        assert torch.equal(NegativeModels(net, [1])(x), lower)
        assert torch.equal(NegativeModels(net, [1], precision="fp32")(x), exact)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": [100, -5]}, "steps: each must be a whole number of iterations, 1 or more, got -5"),
        ({"steps": [0]}, "1 or more, got 0"),
        ({"steps": [1.5]}, r"got 1\.5"),
        ({"steps": []}, r"steps: at least one negative is needed \(N = 0\)"),
        ({"mode": "random", "count": 0}, r"count: at least one negative is needed \(N = 0\)"),
        ({"mode": "pretrained"}, "needs the path of at least one network"),
        ({"pretrained": "x.pth"}, "belongs to mode 'pretrained'"),
        ({"mode": "histroy"}, "unknown mode 'histroy'. Did you mean 'history'"),
        ({"decay": 1.5}, "decay: must lie between 0 and 1, got 1.5"),
        ({"decay": [0.1, 0.2]}, "one value for all or one for each of 4 negatives"),
        ({"start": -0.1}, "start: must lie between 0 and 1"),
        ({"start": 0.1, "mode": "random"}, "start: belongs to mode 'history'"),
        ({"count": 3}, "has 4 negatives by its other options, got 3"),
        ({"negatives_per_step": 5}, "between 1 and the number of negatives, 4, got 5"),
        ({"negatives_per_step": 0}, "between 1 and the number of negatives"),
        ({"selection": "cycel"}, "Did you mean 'cycle'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"threshold": -1.0}, "threshold: must be 0 or more"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(OptionError, match=text):
        NegativeModels(Net(), **options)


def test_networks_with_several_outputs():
    class Two(Net):
        def forward(self, x):
            return [x, x]

    with pytest.raises(OptionError, match="needs a network that returns one tensor, Two returns a list"):
        NegativeModels(Two(), [1])(torch.rand(1, 3, 4, 4))


def test_missing_pretrained_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        NegativeModels(Net(), mode="pretrained", pretrained=str(tmp_path / "none.pth"))


def test_factory_of_another_network():
    with pytest.raises(OptionError, match=r"it must build the same network, but its parameter 'gain' differs"):
        NegativeModels(Net(), mode="random", factory=lambda: nn.Conv2d(3, 3, 1))


def test_without_mmengine_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "basicsr_plugins.negatives.history", raising=False)
    monkeypatch.setitem(sys.modules, "mmengine.model", None)
    with pytest.raises(DependencyError, match="pip install mmengine-lite"):
        NegativeModels(Net())


def test_equal_on_two_ranks(tmp_path):
    def on_a_rank(rank):
        negatives = NegativeModels(nn.Conv2d(3, 3, 3), mode="random", count=2, seed=rank)
        adaptive = NegativeModels(nn.Conv2d(3, 3, 3), mode="adaptive", count=2, threshold=0.5)
        flat = torch.zeros(1, 3, 8, 8)
        # only rank 1 is above the threshold by itself
        due = adaptive.update(nn.Conv2d(3, 3, 3), flat + rank * 2 * torch.randn_like(flat), flat)
        return torch.cat([p.flatten() for p in negatives.parameters()]).tolist(), due

    first, second = two_ranks.fork(on_a_rank, tmp_path)
    assert first == second
    assert first[1] == [0]


def test_the_defaults_stand_in_the_constructor_alone():
    checked = inspect.signature(check_negatives).parameters
    named = {name: p for name, p in checked.items() if p.kind is not p.VAR_KEYWORD}
    assert len(named) == 10
    assert set(named) <= set(inspect.signature(NegativeModels).parameters)
    assert all(p.default is p.empty for p in named.values())


def test_ranks_are_made_equal_where_the_backend_serves_gpus_only():
    import torch.distributed as dist

    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    dist.init_process_group("cuda:fake", store=fake.FakeStore(), rank=0, world_size=2)
    try:
        assert len(NegativeModels(torch.nn.Identity(), steps=[1, 2])) == 2
    finally:
        dist.destroy_process_group()
