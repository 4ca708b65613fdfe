"""ABAIR's estimator: which degradations are in this image, or in each part of it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from basicsr_plugins.archs.hub_network import HubNetwork
from basicsr_plugins.archs.presets import with_presets
from basicsr_plugins.core.errors import CheckpointError, OptionError
from basicsr_plugins.core.registration import provides

__all__ = ["DegradationEstimator", "stored_classes"]

PRESETS = {"full": {}, "tiny": {"width": 8, "view": 32}}  # the second is ours, for CPUs and tests


@provides("arch")
@with_presets(PRESETS)
class DegradationEstimator(HubNetwork):
    """Logits over degradations from two views of an image (phase III of ABAIR, arXiv 2411.18412, section 3).

    The paper says "lightweight" and no more; the network is ours. Resizing an image destroys the traces of noise and of
    JPEG, so one branch reads it at its own resolution (colours and three high-pass residuals) and keeps the mean and
    the spread of each feature; the other reads a small view of the whole, for haze and low light. The same statistics
    taken over tiles instead of the whole image give ``maps``, the weights of spatial blending.

    Args:
        classes: Names of the degradations, one per adapter; ``clean`` may be one more. They are stored in the
            checkpoint, so that an estimator is never used with other adapters than it was trained for.
        width: Channels of the first layer; 96 gives 2.0 M parameters.
        view: Side of the small view.
        preset: ``full`` or ``tiny``.

    Shapes: ``(n, 3, h, w)`` in [0, 1], any size, to ``(n, K)`` logits.

    Raises:
        OptionError: No class, or one twice.

    Example:
        network_e: {type: DegradationEstimator, classes: [rain, haze, noise]}
    """

    restores_images = False

    filters: torch.Tensor
    class_names: torch.Tensor

    def __init__(self, classes: Sequence[str], width: int = 96, view: int = 128) -> None:
        super().__init__()
        if not classes or len(set(classes)) != len(classes):
            raise OptionError(f"classes: expected the degradations' names, each once, got {list(classes)}.")
        self.view = view
        filters = torch.tensor(
            [
                [[0, 0, 0], [-1, 1, 0], [0, 0, 0]],
                [[0, -1, 0], [0, 1, 0], [0, 0, 0]],
                [[1, -2, 1], [-2, 4, -2], [1, -2, 1]],
            ]
        ).float()
        self.register_buffer("filters", filters.repeat(3, 1, 1).unsqueeze(1), persistent=False)
        self.register_buffer("class_names", _encode(classes))
        self.native = _pyramid(12, [width, 2 * width, 2 * width])
        self.whole = _pyramid(3, [width, 2 * width, 2 * width, 4 * width])
        self.hidden = nn.Linear(8 * width, 4 * width)
        self.head = nn.Linear(4 * width, len(classes))

    @property
    def classes(self) -> list[str]:
        """The names of the K columns."""
        return _decode(self.class_names)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (n, K) for images (n, 3, h, w)."""
        detail, whole = self._features(x)
        statistics = torch.cat([_statistics(detail, None), whole.mean(dim=(2, 3), keepdim=True)], dim=1)
        return self._classify(statistics).flatten(1)

    def maps(self, x: torch.Tensor, tile: int = 32) -> torch.Tensor:
        """Return logits (n, K, rows, columns), one per tile of about ``tile`` pixels."""
        detail, whole = self._features(x)
        grid = (max(1, round(x.shape[-2] / tile)), max(1, round(x.shape[-1] / tile)))
        whole = F.adaptive_avg_pool2d(F.interpolate(whole, detail.shape[-2:], mode="bilinear"), grid)
        return self._classify(torch.cat([_statistics(detail, grid), whole], dim=1))

    def load_by_name(self, state: Mapping[str, torch.Tensor], path: str, added: Sequence[str] = ()) -> None:
        """Load a checkpoint whose classes may stand in another order, or lack those that are being ``added``.

        The rows of classes that the checkpoint knows are taken over bit for bit.

        Raises:
            CheckpointError: It knows other classes, or is of another network; both sides are named.
        """
        theirs, mine = stored_classes(state, path), self.classes
        missing = [name for name in mine if name not in theirs and name not in added]
        extra = [name for name in theirs if name not in mine]
        if missing or extra:
            raise CheckpointError(
                f"{path}: this estimator was trained for {', '.join(theirs)}; here it needs {', '.join(mine)}. "
                "Name the same adapters, or put new ones under blend.add and retrain it."
            )
        state = dict(state)
        try:
            for key in ("head.weight", "head.bias"):
                rows = self.state_dict()[key].clone()
                for index, name in enumerate(theirs):
                    rows[mine.index(name)] = state[key][index].to(rows)
                state[key] = rows
            self.load_state_dict({**state, "class_names": self.class_names})
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"{path}: not a checkpoint of this DegradationEstimator: {error}") from None

    def _features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # 8: differences of neighbours are small next to colours, and both enter one convolution
        residuals = 8 * F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.filters.to(x.dtype), groups=3)
        detail = self.native(torch.cat([x, residuals], dim=1))
        view = F.adaptive_avg_pool2d(x, (min(self.view, x.shape[-2]), min(self.view, x.shape[-1])))
        return detail, self.whole(view)

    def _classify(self, statistics: torch.Tensor) -> torch.Tensor:
        columns = statistics.permute(0, 2, 3, 1)
        return self.head(F.gelu(self.hidden(columns))).permute(0, 3, 1, 2)


def stored_classes(state: Mapping[str, torch.Tensor], path: str) -> list[str]:
    """Return the classes of an estimator's checkpoint.

    Raises:
        CheckpointError: It is none.
    """
    if "class_names" not in state or "head.weight" not in state:
        raise CheckpointError(f"{path}: this is no checkpoint of a DegradationEstimator (no class names in it).")
    return _decode(state["class_names"])


def _pyramid(channels: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GELU()]
        channels = width
    return nn.Sequential(*layers)


def _statistics(feature: torch.Tensor, grid: tuple[int, int] | None) -> torch.Tensor:
    """Mean and standard deviation of each channel over each cell of a grid, or over everything."""
    grid = grid or (1, 1)
    mean = F.adaptive_avg_pool2d(feature, grid)
    square = F.adaptive_avg_pool2d(feature.square(), grid)
    return torch.cat([mean, (square - mean.square()).clamp_min(0).add(1e-6).sqrt()], dim=1)


def _encode(names: Sequence[str]) -> torch.Tensor:
    # a state dict of BasicSR holds tensors only
    return torch.tensor(list("\n".join(names).encode("utf-8")), dtype=torch.uint8)


def _decode(text: torch.Tensor) -> list[str]:
    return bytes(text.tolist()).decode("utf-8").split("\n")
