"""One weight per adapter, from the estimator's probabilities or from the mode that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from basicsr_plugins.core.errors import DataError, OptionError, one_of

__all__ = ["CLEAN", "MODES", "blend_weights", "check_mode", "check_names", "keep_clean", "kept_share"]

#: ABAIR's ways to use its adapters (sections 3 and table 8 of arXiv 2411.18412), and ``none`` for the baseline.
MODES = ("soft", "one_hot", "oracle", "sum", "average", "none")
#: The class of an estimator that has no adapter: nothing is wrong with the image.
CLEAN = "clean"


def check_names(names: Sequence[str]) -> None:
    """Refuse adapter names that occur twice or mean a mode.

    Raises:
        OptionError: Naming the adapter.
    """
    for index, name in enumerate(names):
        if name in MODES:
            raise OptionError(f"adapters: {name!r} is a blend mode; give this adapter another name.")
        if name in names[:index]:
            raise OptionError(f"adapters: there are two adapters called {name!r}.")


def check_mode(mode: str, names: Sequence[str], where: str = "mode") -> str:
    """Return ``mode`` if it is one of ``MODES`` or an adapter's name.

    Raises:
        OptionError: It is neither.
    """
    if mode not in MODES and mode not in names:
        raise OptionError(f"{where}: {one_of(mode, [*MODES, *names], 'blend mode or adapter')}")
    return mode


def blend_weights(
    mode: str,
    adapters: Sequence[str],
    probabilities: torch.Tensor | None = None,
    classes: Sequence[str] | None = None,
    labels: torch.Tensor | None = None,
    *,
    top_k: int | None = None,
    threshold: float = 0.0,
) -> torch.Tensor | None:
    """Return one weight per adapter, or None for the baseline.

    Args:
        mode: ``soft`` (the estimator's probabilities), ``one_hot`` (its first choice), ``oracle`` (the true labels),
            ``sum`` (every weight 1), ``average`` (1/T), ``none``, or the name of one adapter.
        adapters: The names of the T adapters.
        probabilities: (n, K) or, for spatial blending, (n, K, h, w), summing to 1 over K; for ``soft`` and ``one_hot``.
        classes: What the K columns mean. Default: the adapters, in order. A class called ``clean`` needs no adapter:
            its share goes to the baseline.
        labels: (n) class indices, or (n, K) shares of each class for mixtures; for ``oracle``.
        top_k: Keep the k largest weights of each image and rescale them to the same sum.
        threshold: Images (or pixels) whose largest probability lies below use the baseline.

    Returns:
        (n, T), (n, T, h, w), (1, T) where every image gets the same, or None.

    Raises:
        OptionError: The mode is unknown, or what it needs was not given.
        DataError: A label has no adapter.
    """
    check_mode(mode, adapters)
    if mode == "none":
        return None
    if mode not in MODES or mode in ("sum", "average"):
        row = torch.ones(1, len(adapters))
        if mode == "average":
            row /= len(adapters)
        elif mode != "sum":
            row = torch.tensor([[float(name == mode) for name in adapters]])
        return row if probabilities is None else row.to(probabilities.device)
    classes = list(adapters if classes is None else classes)
    check_classes(classes, adapters)
    shares = _class_shares(mode, adapters, probabilities, classes, labels, top_k, threshold)
    # column by column: a list of indices would be copied to the device
    return torch.stack([shares[:, classes.index(name)] for name in adapters], dim=1)


def kept_share(
    mode: str,
    probabilities: torch.Tensor | None = None,
    classes: Sequence[str] = (),
    labels: torch.Tensor | None = None,
    *,
    top_k: int | None = None,
    threshold: float = 0.0,
) -> torch.Tensor | None:
    """Return how much of each image stays as it is: what the share of the class ``clean`` has above one half, doubled.

    Beyond the paper, which has no such class. Below one half the image is restored as ABAIR does; an image that is
    clean for sure keeps its pixels. The arguments are those of ``blend_weights``.

    Returns:
        (n), (n, h, w), or None where the mode asks nobody, or nobody knows ``clean``.

    Example:
        >>> import torch
        >>> kept_share("soft", torch.tensor([[0.1, 0.9], [0.6, 0.4]]), ["rain", "clean"])
        tensor([0.8000, 0.0000])
    """
    if CLEAN not in classes or mode not in ("soft", "one_hot", "oracle"):
        return None
    shares = _class_shares(mode, classes, probabilities, classes, labels, top_k, threshold)
    return (2 * shares[:, list(classes).index(CLEAN)] - 1).clamp(min=0)


def keep_clean(restored: torch.Tensor, image: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """Return (n, c, h, w) with the share ``kept`` (n), (n, h', w') of the image itself; all of ``restored`` for None.

    Raises:
        OptionError: The network enlarges.
    """
    if kept is None:
        return restored
    if restored.shape != image.shape:
        raise OptionError("keep_clean: a network that enlarges images has nothing to keep. Set keep_clean: false.")
    share = kept[:, None, None, None] if kept.dim() == 1 else kept[:, None]
    if kept.dim() == 3:
        share = torch.nn.functional.interpolate(share, image.shape[-2:], mode="bilinear", align_corners=False)
    return restored + share.to(restored) * (image - restored)


def _class_shares(
    mode: str,
    adapters: Sequence[str],
    probabilities: torch.Tensor | None,
    classes: Sequence[str],
    labels: torch.Tensor | None,
    top_k: int | None,
    threshold: float,
) -> torch.Tensor:
    """Return the share of each class (n, K) or (n, K, h, w), for the modes that go by classes."""
    if mode == "oracle":
        if labels is None:
            raise OptionError(
                "mode oracle needs the true degradation of each image: a data set that gives 'degradation'."
            )
        return _shares(labels, classes, adapters)
    if probabilities is None:
        raise OptionError(f"mode {mode} needs an estimator.")
    shares = _one_hot(probabilities) if mode == "one_hot" else _keep_largest(probabilities, top_k)
    if threshold > 0:
        sure = probabilities.amax(dim=1, keepdim=True) >= threshold
        shares = shares * sure.to(shares.dtype)
    return shares


def check_classes(classes: Sequence[str], adapters: Sequence[str]) -> None:
    """Refuse an estimator that knows other degradations than there are adapters for.

    Raises:
        OptionError: Naming what each side lacks.
    """
    no_adapter = [name for name in classes if name not in adapters and name != CLEAN]
    no_class = [name for name in adapters if name not in classes]
    if no_adapter or no_class:
        raise OptionError(
            f"the estimator knows {', '.join(classes)}; the adapters are {', '.join(adapters)}. "
            + (f"Without an adapter: {', '.join(no_adapter)}. " if no_adapter else "")
            + (f"Unknown to the estimator: {', '.join(no_class)}. " if no_class else "")
            + "Name the missing adapters, or add the class with 'add:' and retrain the estimator."
        )


def _shares(labels: torch.Tensor, classes: Sequence[str], adapters: Sequence[str]) -> torch.Tensor:
    if labels.dim() == 1:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(classes):
            wrong = low if low < 0 else high
            raise DataError(
                f"mode oracle: the data set gives degradation {wrong}, but there are {len(classes)} classes "
                f"(0 to {len(classes) - 1}: {', '.join(classes)}), one per adapter ({', '.join(adapters)})."
            )
        return torch.nn.functional.one_hot(labels.long(), len(classes)).float()
    if labels.shape[1] != len(classes):
        raise DataError(
            f"mode oracle: {labels.shape[1]} shares per image were given, but there are {len(classes)} classes: "
            f"{', '.join(classes)}."
        )
    return labels.float()


def _one_hot(probabilities: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(probabilities).scatter(1, probabilities.argmax(dim=1, keepdim=True), 1.0)


def _keep_largest(probabilities: torch.Tensor, top_k: int | None) -> torch.Tensor:
    if top_k is None or top_k >= probabilities.shape[1]:
        return probabilities
    kept = torch.zeros_like(probabilities).scatter(1, probabilities.topk(top_k, dim=1).indices, 1.0) * probabilities
    return kept * (probabilities.sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True))
