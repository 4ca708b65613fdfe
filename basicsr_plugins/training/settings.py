"""Every option of the engine, declared once: the sections ``train``, ``val``, ``path`` and ``logger`` of a YAML file.

Stock keys keep their stock meaning. A key without a source is ours and does nothing unless it is written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional, Union

from basicsr_plugins.core.options import fraction, non_negative, option, positive
from basicsr_plugins.negatives.ingredient import SPNSettings

__all__ = ["LoggerSettings", "PathSettings", "TrainSettings", "ValSettings"]

STOCK = "stock BasicSR"


def _at_least_one(value: float) -> str | None:
    return None if value >= 1 else "must be 1 or more"


def _clip_limit(value: Union[float, dict[str, float]]) -> str | None:
    limits = value if isinstance(value, dict) else {"norm": value}
    unknown = [key for key in limits if key not in ("norm", "value")]
    if unknown or not limits:
        return "must be a number, {norm: x} or {value: x}"
    return None if all(limit > 0 for limit in limits.values()) else "must be above 0"


@dataclass
class TrainSettings:
    """Section ``train`` of every restoration recipe.

    .. code-block:: yaml

        train:
          total_iter: 100000
          precision: bf16
          accumulate: 2
          grad_clip: 0.01
          ema_decay: 0.999
          optim_g: {type: AdamW, lr: !!float 3e-4, weight_decay: 0, betas: [0.9, 0.999]}
          scheduler: {type: CosineAnnealingLR, T_max: 100000, eta_min: !!float 1e-6}
          pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
    """

    total_iter: int = option(help="number of iterations", check=positive, source=STOCK)
    optim_g: Optional[dict[str, Any]] = option(None, "optimizer of net_g: `type` and its arguments", source=STOCK)
    scheduler: Optional[dict[str, Any]] = option(
        None, "learning-rate schedule of every optimizer; left out, the rate stays constant", source=STOCK
    )
    warmup_iter: int = option(-1, "iterations over which the rate rises linearly; -1 for none", source=STOCK)
    ema_decay: float = option(
        0.0, "decay of the averaged copy of the weights; 0 for none", source=STOCK, check=fraction
    )
    pixel_opt: Optional[dict[str, Any]] = option(None, "pixel loss", source=STOCK)
    perceptual_opt: Optional[dict[str, Any]] = option(None, "perceptual loss", source=STOCK)
    extra_losses: dict[str, Any] = option({}, "further registered losses by log name, each called with (output, gt)")
    spn_opt: Optional[SPNSettings] = option(None, "SPN contrastive loss with negatives from the model's own history")

    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "arithmetic of the forward and backward pass")
    tf32: Optional[bool] = option(
        None, "allow TF32 matrix products and convolutions on the GPU; ~ keeps torch's setting"
    )
    channels_last: bool = option(False, "keep networks and images in channels-last memory order")
    compile: Union[bool, dict[str, Any]] = option(
        False, "compile what a step runs: true, or arguments of torch.compile"
    )
    accumulate: int = option(1, "iterations whose gradients are summed into one step", check=_at_least_one)
    grad_clip: Union[float, dict[str, float], None] = option(
        None, "largest gradient norm, or {norm: x} / {value: x}; logged as grad_norm", check=_clip_limit
    )
    progressive: Optional[dict[str, Any]] = option(
        None,
        "progressive patches: {iters: [...], gt_sizes: [...], batch_sizes: [...]}",
        source="Restormer, DCPT scripts",
    )
    skip_nonfinite: int = option(
        0,
        "how many iterations with NaN or infinite losses or gradients may be skipped; more than half of all steps, or "
        "50 in a row, are an error anyway",
        check=non_negative,
    )
    save_best: bool = option(
        False, "keep net_*_best_<data set>_<metric>.pth of the best value of each of val.metrics, and of the accuracy"
    )
    keep_last: Optional[int] = option(None, "how many numbered checkpoints are kept; ~ keeps all", check=positive)
    safetensors: bool = option(False, "write net_*.safetensors (the averaged weights, where there are any) as well")


@dataclass
class ValSettings:
    """Section ``val``: what stock has, plus any size, tiles and self-ensemble.

    .. code-block:: yaml

        val:
          val_freq: 5000
          save_img: false
          tile: 512
          tile_overlap: 32
          metrics:
            psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: false}
    """

    val_freq: Optional[Union[int, float]] = option(None, "iterations between validations", source=STOCK, check=positive)
    save_img: bool = option(False, "save the restored images", source=STOCK)
    pbar: bool = option(False, "show a progress bar", source=STOCK)
    suffix: Optional[str] = option(None, "suffix of saved images in a test", source=STOCK)
    metrics: Optional[dict[str, Any]] = option(None, "metrics by log name", source=STOCK)
    pad_multiple: Optional[int] = option(
        None, "pad images to a multiple of this; ~ takes the network's own window or pads nothing", check=positive
    )
    tile: Optional[int] = option(None, "restore in tiles of this side, pixels of the input", check=positive)
    tile_overlap: int = option(32, "overlap of neighbouring tiles, pixels of the input", check=non_negative)
    self_ensemble: bool = option(False, "average over the eight flips and rotations")


@dataclass
class LoggerSettings:
    """Section ``logger``, as in stock."""

    print_freq: int = option(100, "iterations between log lines", source=STOCK, check=positive)
    save_checkpoint_freq: Union[int, float] = option(
        5000.0, "iterations between checkpoints", source=STOCK, check=positive
    )
    use_tb_logger: bool = option(False, "write TensorBoard files", source=STOCK)
    wandb: Optional[dict[str, Any]] = option(None, "Weights & Biases project", source=STOCK)


@dataclass
class PathSettings:
    """Section ``path``: the keys that do not depend on a network's name."""

    resume_state: Optional[str] = option(None, "training state to go on from", source=STOCK)
    ignore_resume_networks: Optional[list[str]] = option(None, "networks not loaded at a resume", source=STOCK)
    experiments_root: Optional[str] = option(None, "set by BasicSR", source=STOCK)
    results_root: Optional[str] = option(None, "set by BasicSR", source=STOCK)
    models: Optional[str] = option(None, "set by BasicSR", source=STOCK)
    training_states: Optional[str] = option(None, "set by BasicSR", source=STOCK)
    log: Optional[str] = option(None, "set by BasicSR", source=STOCK)
    visualization: Optional[str] = option(None, "set by BasicSR", source=STOCK)
