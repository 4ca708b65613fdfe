"""Differentiate a head part by part, so that the graph of one part only lives beside the network's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["losses_in_parts"]


def losses_in_parts(
    features: Sequence[Tensor], head_loss: Callable[[list[Tensor], slice], Tensor], parts: int = 2
) -> Iterator[Tensor]:
    """Yield the losses of a head for parts of the batch, then hand what came back on to the network.

    The caller makes a backward pass of each loss before it asks for the next; the head's activations of that part are
    then gone. After the last one the features' gradients go back into the network in one pass. The sum of the losses,
    and the gradients, are those of the whole batch, if the head treats each image alone and the loss is their mean.

    Args:
        features: What the network puts out, ``(n, ...)`` each, with its graph.
        head_loss: Takes the features of some images and which images these are; returns their mean loss. It need not
            use every feature.
        parts: Into how many the batch is cut; a batch of fewer images is cut into single ones.

    Example:
        >>> features = [torch.ones(4, 2, requires_grad=True) * 3]
        >>> for loss in losses_in_parts(features, lambda some, images: some[0].square().mean()):
        ...     loss.backward()
    """
    count = features[0].shape[0]
    size = -(-count // parts)
    gradients = []
    for first in range(0, count, size):
        images = slice(first, min(first + size, count))
        leaves = [feature[images].detach().requires_grad_() for feature in features]
        yield head_loss(leaves, images) * ((images.stop - first) / count)
        gradients.append([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves])
    reached = [(feature, torch.cat(of)) for feature, *of in zip(features, *gradients) if feature.requires_grad]
    if reached:
        with torch.autocast(features[0].device.type, enabled=False):  # a backward pass keeps its forward pass's types
            torch.autograd.backward([feature for feature, _ in reached], [gradient for _, gradient in reached])
