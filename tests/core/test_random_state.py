"""Every generator of a process is saved and restored; the training step has a stream of its own."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from basicsr_plugins.core.random_state import (
    OwnStream,
    get_random_state,
    preserved_random_state,
    set_random_state,
)


def draw() -> tuple:
    numbers = np.random.rand(3).tolist(), np.random.randn()  # noqa: NPY002
    return random.random(), random.gauss(0, 1), numbers, torch.rand(3).tolist(), torch.randn(1).item()


def test_the_state_survives_a_safe_file():
    draw()
    file = io.BytesIO()
    torch.save(get_random_state(), file)
    expected = draw()
    draw()
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert draw() == expected


def test_preserved_random_state():
    expected_state = get_random_state()
    expected = draw()
    set_random_state(expected_state)
    with preserved_random_state():
        draw()
        draw()
    assert draw() == expected


def test_the_own_stream_goes_on_whatever_is_drawn_outside():
    def run(outside: int) -> list:
        torch.manual_seed(5)
        random.seed(5)
        stream, drawn = OwnStream(), []
        for _ in range(3):
            with stream:
                drawn.append((random.random(), torch.rand(1).item()))
            for _ in range(outside):
                torch.rand(1)
                random.random()
        return drawn

    assert run(0) == run(7)
    assert len(set(run(0))) == 3


def test_the_own_stream_leaves_the_outside_alone_and_resumes():
    stream = OwnStream()
    with stream:
        torch.rand(1)
    state = stream.state
    with stream:
        expected = torch.rand(1).item()
    torch.manual_seed(9)
    outside = torch.rand(2).tolist()
    torch.manual_seed(9)
    first = torch.rand(1).item()
    other = OwnStream()
    other.state = state
    with other:
        assert torch.rand(1).item() == expected
    assert [first, torch.rand(1).item()] == outside
