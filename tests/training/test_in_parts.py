"""A head that is differentiated part by part gives the losses and gradients of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basicsr_plugins.training.in_parts import losses_in_parts


def _network_and_head() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_losses_and_gradients_are_those_of_the_whole_batch(count: int, parts: int) -> None:
    network, head = _network_and_head()
    images, labels = torch.rand(count, 3, 6, 6), torch.arange(count) % 5
    loss = nn.functional.cross_entropy(head(network(images)), labels)
    loss.backward()
    parameters = [*network.parameters(), *head.parameters()]
    wanted = [p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = None
    seen = []
    total = torch.zeros(())
    features = [network(images)]
    for part in losses_in_parts(
        features, lambda some, which: nn.functional.cross_entropy(head(some[0]), labels[which]), parts
    ):
        part.backward()
        seen.append(part)
        total = total + part.detach()
    assert len(seen) == min(parts, -(-count // -(-count // parts)))
    torch.testing.assert_close(total, loss.detach())
    for parameter, gradient in zip(parameters, wanted):
        torch.testing.assert_close(parameter.grad, gradient)


def test_at_most_one_parts_activations_live() -> None:
    alive: set[int] = set()
    most = [0]

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: torch.Tensor) -> torch.Tensor:
            ctx.rows = x.shape[0]
            alive.add(id(ctx))
            most[0] = max(most[0], ctx.rows * len(alive))
            return x * 2

        @staticmethod
        def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
            alive.discard(id(ctx))
            return gradient * 2

    feature = torch.ones(6, 2, requires_grad=True) * 1
    for loss in losses_in_parts([feature], lambda some, which: Counted.apply(some[0]).mean(), 2):
        loss.backward()
    assert most[0] == 3


def test_a_network_that_is_not_trained_gets_nothing() -> None:
    _, head = _network_and_head()
    feature = torch.rand(2, 4, 6, 6)
    for loss in losses_in_parts([feature], lambda some, which: head(some[0]).mean()):
        loss.backward()
    assert feature.grad is None
    assert head[0].weight.grad is not None


def test_the_network_is_differentiated_outside_autocast() -> None:
    seen = []

    class Asked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: torch.Tensor) -> torch.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
            seen.append((gradient @ gradient.T).dtype)
            return gradient

    losses = losses_in_parts(
        [Asked.apply(torch.ones(2, 2, requires_grad=True))], lambda some, which: some[0].square().mean()
    )
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16):  # as the engine asks for a phase
            loss = next(losses, None)
        if loss is None:
            break
        loss.backward()
    assert seen == [torch.float32]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_head_may_ignore_features(parts: int) -> None:
    network, head = nn.Conv2d(3, 4, 3), nn.Linear(4, 1)
    used, ignored = network(torch.rand(4, 3, 5, 5)), network(torch.rand(4, 3, 5, 5))
    wanted = torch.autograd.grad(head(used.mean(dim=(-2, -1))).mean(), network.weight, retain_graph=True)[0]
    for loss in losses_in_parts([ignored, used], lambda some, which: head(some[1].mean(dim=(-2, -1))).mean(), parts):
        loss.backward()
    torch.testing.assert_close(network.weight.grad, wanted)
