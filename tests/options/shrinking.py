"""Scaled-down copies of any option file: tiny networks, generated images, two iterations, everything on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from basicsr_plugins.checkpoints import save
from basicsr_plugins.core.registration import lookup, provided
from basicsr_plugins.core.safe_yaml import load_yaml

OPTIONS = Path(__file__).parents[2] / "options"
#: Arguments that say what a network is for, not how large it is.
KEPT = {
    "type", "num_classes", "upscale", "in_chans", "img_range", "upsampler", "resi_connection", "num_in_ch",
    "num_out_ch", "inp_channels", "out_channels", "LayerNorm_type", "padding", "train_size", "res_scale", "rgb_mean",
    "unit_range", "classes",
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "NAFNet": {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "NAFNetLocal": {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "SwinIR": {"img_size": 32, "window_size": 8, "depths": [1, 1], "embed_dim": 8, "num_heads": [2, 2], "mlp_ratio": 2},
    "RCAN": {"num_feat": 4, "num_group": 4, "num_block": 1, "squeeze_factor": 2},
    "EDSR": {"num_feat": 4, "num_block": 1},
    "DegradationClassifier": {"preset": "slim"},
    "RestorationResNet": {"num_feat": 4, "num_block": 1},
    "UNet": {"num_feat": 4, "num_level": 2},
    "VQGAN": {
        "n_embed": 16,
        "embed_dim": 4,
        "ddconfig": {
            "ch": 32,
            "ch_mult": [1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "resolution": 32,
            "z_channels": 4,
        },
    },
}


def small_network(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a tiny network of the same kind."""
    kept = {key: value for key, value in options.items() if key in KEPT}
    if options["type"] in SIZES:
        return {**kept, **SIZES[options["type"]]}
    kind = provided("arch").get(options["type"])
    if "tiny" in getattr(kind, "presets", {}):
        return {**kept, "preset": "tiny"}
    if options["type"] == "DehazeFormer":
        return {**kept, "preset": "T", "depths": [1, 1, 1, 1, 1]}
    return dict(options)


#: What every training set is loaded with; the children of a mix leave it to the mix.
_LOADER = {"batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "dataset_enlarge_ratio": 1, "prefetch_mode": None}


class Shrunk:
    """Makes the copies; images, checkpoints and adapters are generated once and shared.

    Args:
        folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generator = np.random.default_rng(0)
        for index in range(2):
            image = cv2.resize(generator.integers(0, 256, (9, 11, 3), dtype=np.uint8), (72, 64))
            for kind, factor in (("gt", 1), ("lq", 1), ("x2", 2), ("x3", 3), ("x4", 4)):
                path = folder / kind / f"{index}.png"
                path.parent.mkdir(exist_ok=True)
                cv2.imwrite(str(path), cv2.resize(image, (72 // factor, 64 // factor)) // (1 + (kind == "lq")))

    def options(self, name: str) -> dict[str, Any]:
        """Return the tiny copy of ``options/<name>`` as BasicSR hands it to a model."""
        opt = plain(load_yaml(OPTIONS / name))
        is_train = "train" in opt
        root = self.folder / "runs" / name.replace("/", "_")
        opt.update(
            num_gpu=0, dist=False, rank=0, world_size=1, is_train=is_train, auto_resume=False, root_path=str(root)
        )
        for key in [key for key in opt if key.startswith("network_")]:
            opt[key] = small_network(opt[key])
        for phase, section in opt["datasets"].items():
            section.update(phase=phase.split("_")[0], scale=opt["scale"])
            self._shrink_dataset(section, opt["scale"])
        if is_train:
            _shrink_training(opt)
        paths = opt.setdefault("path", {})
        self._give_adapters(opt)
        for key in [key for key in paths if key.startswith("pretrain_network_") and paths[key]]:
            paths[key] = str(self._checkpoint(opt, key.rpartition("_")[2]))
        for key in ("models", "training_states", "log", "visualization"):
            paths[key] = str(root / key)
        return opt

    def _shrink_dataset(self, section: dict[str, Any], scale: int) -> None:
        train = section.get("phase", "train") == "train"
        for key in [key for key in section if key.startswith("dataroot")]:
            kind = "lq" if key == "dataroot_lq" else "gt"
            section[key] = str(self.folder / (f"x{scale}" if kind == "lq" and scale > 1 else kind))
        if "dataroot_lq" in section and "dataroot_gt" not in section:
            section.update(dataroot_gt=str(self.folder / "gt"), pair="same")  # test_data_option_fragments has the rules
        section.pop("meta_info_file", None)
        section.pop("cache", None)
        if "filename_tmpl" in section:
            section["filename_tmpl"] = "{}"
        if train:
            section.update(gt_size=64 if scale > 1 else 32)
        if "tile_size" in section:  # RainSynthesisDataset cuts tiles
            section.update(tile_size=32, num_backgrounds=2)
            section.pop("gt_size", None)
        elif "gt_size" in section:
            section["gt_size"] = 32
        children = section.get("children") or {}
        for child in children.values() if isinstance(children, dict) else children:
            child["phase"] = section.get("phase", "train")
            self._shrink_dataset(child, scale)
            for key in ("gt_size", "phase", *_LOADER):
                child.pop(key, None)
        if train:
            section.update(_LOADER)

    def _checkpoint(self, opt: dict[str, Any], name: str) -> Path:
        """Write random weights of a network of the option file, so that it can start from some."""
        options = dict(opt[f"network_{name}"])
        if name == "dc":
            from basicsr_plugins.archs.feature_presets import preset_layers
            from basicsr_plugins.features import FeatureTap
            from basicsr_plugins.models.parts.degradation_classification import classifier_options

            network = _build(opt["network_g"])
            options = classifier_options(options, FeatureTap(network, preset_layers(network)))
        if name == "e":
            options.setdefault("classes", list(opt["blend"]["adapters"]))
        key = str(abs(hash(repr(sorted(options.items())))))
        path = self.folder / "weights" / f"{options['type']}_{key}.pth"
        if not path.exists():
            weights = _build(options).state_dict()
            save({"params": weights, "params_ema": weights}, path)
        return path

    def _give_adapters(self, opt: dict[str, Any]) -> None:
        blend = opt.get("blend")
        if not blend:
            return
        series = "builtin" if opt["network_g"]["type"] == "NAFNet" else "demo"
        for key in ("adapters", "add"):
            if blend.get(key):
                blend[key] = {name: str(self._adapter(series, name)) for name in blend[key]}

    def _adapter(self, series: str, name: str) -> Path:
        folder = self.folder / "adapters" / series / name
        if not folder.exists():
            adapter_opt = self.options(f"{series}/abair_adapter_{name}.yml")
            model = lookup("model", "AdapterModel")(copy.deepcopy(adapter_opt))
            model.save(0, -1)
            saved = next(Path(adapter_opt["path"]["models"]).glob("adapter_*"))
            folder.parent.mkdir(parents=True, exist_ok=True)
            saved.rename(folder)
        return folder


def _build(options: Mapping[str, Any]) -> torch.nn.Module:
    from basicsr_plugins.core.random_state import preserved_random_state

    arguments = {key: value for key, value in options.items() if key != "type"}
    with preserved_random_state():
        torch.manual_seed(0)
        return lookup("arch", options["type"])(**arguments)


def _shrink_training(opt: dict[str, Any]) -> None:
    train = opt["train"]
    train.update(total_iter=2, warmup_iter=-1)
    train.pop("progressive", None)
    train.pop("compile", None)
    if (train.get("perceptual_opt") or {}).get("type") == "PerceptualLoss" and train.get("pixel_opt"):
        train.pop("perceptual_opt")  # BasicSR's VGG would be downloaded
    scheduler = train.get("scheduler")
    if scheduler and "T_max" in scheduler:
        scheduler["T_max"] = 2
    spn = train.get("spn_opt")
    if spn:
        spn["negatives"]["steps"] = [1, 2]
        spn["guard"] = {"warmup_iter": 0}
        if spn["loss"].get("features", "vgg16") != "pixel":
            spn["loss"]["weights"] = "random"
    opt["val"].update(val_freq=2)


def plain(value: Any) -> Any:
    """Turn ordered mappings into plain ones."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
