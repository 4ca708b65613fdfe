"""The one distance of the contrastive losses: the mean absolute difference of features, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, Union, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from basicsr_plugins.core.errors import DataError, OptionError
from basicsr_plugins.core.precision import autocast_dtype
from basicsr_plugins.losses.perceptual_features import build_features

__all__ = ["FeatureDistance", "as_references", "weighted_l1"]

#: How many calls are checked for the range of their images. A check costs one read-back of the device.
RANGE_CHECKS = 10


class _WeightedL1(torch.autograd.Function):
    """sum_k w_k mean|x - r_k|, keeping one gradient of x's size for the backward pass however many references."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, references: Tensor, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
        distances = []
        slope = None
        # with equal weights the slope is a small whole number: a quarter of the memory, and exact
        equal = len(set(weights)) == 1 and len(weights) < 128
        for reference, weight in zip(references, weights):
            difference = x - reference
            distances.append(difference.abs().mean(dtype=_wide(x.dtype)))
            sign = difference.sign_()
            sign = sign.to(torch.int8) if equal else sign.mul_(weight)
            slope = sign if slope is None else slope.add_(sign)
        ctx.save_for_backward(slope)
        ctx.scale = (weights[0] if equal else 1.0) / x.numel()
        ctx.dtype = x.dtype
        each = torch.stack(distances)
        ctx.mark_non_differentiable(each)
        return _weighted_sum(distances, weights), each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _each: Tensor) -> tuple[Optional[Tensor], None, None]:
        (slope,) = ctx.saved_tensors
        return slope.to(ctx.dtype) * (gradient * ctx.scale).to(ctx.dtype), None, None


def weighted_l1(x: Tensor, references: Tensor, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return ``(sum_k w_k mean|x - r_k|, mean|x - r_k| for each k)``; the gradient flows into ``x`` alone.

    Args:
        x: ``(n, c, h, w)``.
        references: ``(k, n, c, h, w)``, constants.
        weights: k numbers.
    """
    if x.requires_grad and torch.is_grad_enabled():
        return _WeightedL1.apply(x, references.detach(), list(weights))
    distances = [(x - reference).abs().mean(dtype=_wide(x.dtype)) for reference in references.detach()]
    return _weighted_sum(distances, weights), torch.stack(distances)


class FeatureDistance(nn.Module):
    """Distances between the features of an image and those of constant references, ``sum_l w_l d_l``.

    The features of all references come from one batched pass without a graph; each layer is compared and dropped
    before the next one is computed, so that only the image's own features stay in memory.

    Args:
        features, layers, weights, range_norm, use_input_norm: See ``build_features``; ``layers`` maps each layer's
            name to its weight, or is a plain list, each with weight 1. None: ``published`` for a VGG, else all.
        reference_precision: ``fp32``, ``bf16`` or ``fp16`` for the pass over the references.
        reference_batch: The largest number of references per pass; None: all in one.
        published: A VGG's layers where none are given.

    Raises:
        OptionError: Unknown backbone or layer, or a weight that is not a number.
        DependencyError: The VGG's weights cannot be had.
    """

    def __init__(
        self,
        features: Union[str, Mapping[str, Any], nn.Module],
        layers: Union[Mapping[str, float], Sequence[str], None],
        weights: str = "auto",
        range_norm: bool = False,
        use_input_norm: bool = True,
        reference_precision: str = "fp32",
        reference_batch: Optional[int] = None,
        published: Optional[Mapping[str, float]] = None,
    ) -> None:
        super().__init__()
        if layers is None and isinstance(features, str) and features.startswith("vgg"):
            layers = published
        self.layer_weights = _layer_weights(layers)
        self.features = build_features(features, list(self.layer_weights), weights, range_norm, use_input_norm)
        self.reference_type = autocast_dtype(reference_precision, "reference_precision")
        if reference_batch is not None and reference_batch < 1:
            raise OptionError(f"reference_batch: must be 1 or more, got {reference_batch}.")
        self.reference_batch = reference_batch
        self.range_norm = range_norm
        self._range_checks = {"data": RANGE_CHECKS, "output": RANGE_CHECKS}

    def weight(self, layer: str) -> float:
        """Return a layer's weight; 1 where none was given."""
        return self.layer_weights.get(layer, 1.0)

    def layer_distances(
        self, image: Tensor, groups: Mapping[str, tuple[Tensor, Sequence[float]]]
    ) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
        """Return ``{layer: {group: (weighted sum, each distance)}}`` for groups of references.

        Args:
            image: ``(n, c, h, w)``; the only tensor that gets a gradient.
            groups: Name to ``(references (k, n, c, h, w), k weights)``.
        """
        own = self.own(image)
        found: dict[str, dict[str, list[Any]]] = {layer: {name: [0.0, []] for name in groups} for layer in own}
        pieces = [
            (name, references[start:stop], weights[start:stop])
            for name, (references, weights) in groups.items()
            for start, stop in self._slices(len(references))
        ]
        # what has one shape goes through the extractor together, whichever group it is of
        for batch in self._packed(pieces):
            for layer, features in self._stream(torch.cat([references for _, references, _ in batch])):
                start = 0
                for name, references, weights in batch:
                    part = features[start : start + len(references)].to(own[layer].dtype)
                    total, each = weighted_l1(own[layer], part, weights)
                    start += len(references)
                    found[layer][name][0] = found[layer][name][0] + total
                    found[layer][name][1].append(each)
        return {
            layer: {name: (total, torch.cat(each)) for name, (total, each) in of_layer.items()}
            for layer, of_layer in found.items()
        }

    def forward(self, image: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(mean over references, each reference's distance (k,))`` of ``sum_l w_l mean|phi_l - phi_l|``."""
        count = len(references)
        layers = self.layer_distances(image, {"references": (references, [1.0 / count] * count)})
        mean: Any = sum(self.weight(layer) * of["references"][0] for layer, of in layers.items())
        each: Any = sum(self.weight(layer) * of["references"][1] for layer, of in layers.items())
        return mean, each

    def own(self, image: Tensor) -> dict[str, Tensor]:
        """Return the image's features by layer, with a graph; in float32 at least, under autocast too."""
        self.check_range(image)
        with torch.autocast(image.device.type, enabled=False):
            return self.features(_at_least_float32(image))

    def pairs(self, image: Tensor, references: Tensor) -> tuple[dict[str, Tensor], Iterator[tuple[str, Tensor]]]:
        """Return the image's features, and the references' ``(k, n, c, h, w)`` layer by layer, without a graph."""
        return self.own(image), self._stream(references)

    def _stream(self, references: Tensor) -> Iterator[tuple[str, Tensor]]:
        count, batch = references.shape[:2]
        device = references.device.type
        lower = self.reference_type is not None and references.dtype != torch.float64
        stream = cast(Any, self.features).stream(_at_least_float32(references.detach().flatten(0, 1)))
        while True:
            with torch.no_grad(), torch.autocast(device, dtype=self.reference_type, enabled=lower):
                try:
                    layer, feature = next(stream)
                except StopIteration:
                    return
            yield layer, feature.unflatten(0, (count, batch))

    def _slices(self, count: int) -> list[tuple[int, int]]:
        step = self.reference_batch or count
        return [(start, min(start + step, count)) for start in range(0, count, step)]

    def _packed(self, pieces: list[Any]) -> list[list[Any]]:
        return [[piece] for piece in pieces] if self.reference_batch else [pieces]

    def trust_outputs(self) -> None:
        """Check data alone from here on: a network from scratch (FFA-Net) may leave the range far behind."""
        self._range_checks["output"] = 0

    @torch.no_grad()
    def check_range(self, image: Tensor, strict: bool = False) -> None:
        """Refuse images that cannot lie in the declared range; looks at the first calls only.

        Args:
            image: Images, or a network's output: a fresh network may leave the range a little.
            strict: The images are data, not an output: nothing may leave the range.

        Raises:
            DataError: The images are in another range.
        """
        kind = "data" if strict else "output"
        if self._range_checks[kind] <= 0:
            return
        self._range_checks[kind] -= 1
        low, high = (-1.0, 1.0) if self.range_norm else (0.0, 1.0)
        margin = 0.02 if strict else 0.25
        outside = ((image < low - margin * (high - low)) | (image > high + margin * (high - low))).float().mean()
        if float(outside) > (0.0 if strict else 0.25):
            raise DataError(
                f"images out of range: expected [{low:g}, {high:g}], got values from {float(image.min()):.4g} to "
                f"{float(image.max()):.4g}. Divide 8-bit images by 255; for images in [-1, 1] set 'range_norm: true'."
            )


def as_references(given: Union[Tensor, Sequence[Tensor]], like: Tensor, what: str = "negatives") -> Tensor:
    """Return references as one detached tensor ``(k, n, c, h, w)``.

    Args:
        given: One image batch, a sequence of k batches, or a tensor that is stacked already.
        like: The output; the references must have its shape.
        what: Their name, for the messages.

    Raises:
        OptionError: There are none.
        DataError: Their shape is not the output's.
    """
    if isinstance(given, Tensor):
        stacked = given.unsqueeze(0) if given.dim() == like.dim() else given
    else:
        given = list(given)
        shapes = {tuple(item.shape) for item in given}
        if len(shapes) > 1:
            raise DataError(f"{what}: all must have one shape, got {sorted(shapes)}.")
        stacked = torch.stack([item.detach() for item in given]) if given else like.new_empty(0, *like.shape)
    if len(stacked) == 0:
        raise OptionError(f"{what}: at least one is needed, got none (N = 0).")
    if stacked.shape[1:] != like.shape:
        raise DataError(
            f"{what}: expected the output's shape {tuple(like.shape)}, got {tuple(stacked.shape[1:])} "
            f"(and {len(stacked)} of them)."
        )
    return stacked.detach()


def _layer_weights(layers: Union[Mapping[str, float], Sequence[str], None]) -> dict[str, float]:
    if layers is None:
        return {}
    if isinstance(layers, str):
        raise OptionError(f"layers: expected a list of names or a mapping of name to weight, got {layers!r}.")
    weights = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight < 0:
            raise OptionError(f"layers.{name}: expected a weight of 0 or more, got {weight!r}.")
    return {str(name): float(weight) for name, weight in weights.items()}


def _weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    # numbers of the host go along with a kernel; a tensor of them would be copied to the device
    return torch.stack([value * weight for value, weight in zip(values, weights)]).sum()


def _at_least_float32(images: Tensor) -> Tensor:
    return images if images.dtype in (torch.float32, torch.float64) else images.float()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32
