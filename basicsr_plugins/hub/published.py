"""The published weights that have a name here: which network they are of, and where their authors put them.

Read from the READMEs of the repositories and from the papers. Hashes and sizes that nobody published are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from basicsr_plugins.core.errors import OptionError, one_of

__all__ = ["MODELS", "PublishedModel", "published_model"]


@dataclass(frozen=True)
class PublishedModel:
    """One file of weights.

    Args:
        name: What ``--model`` takes.
        network: The ``type`` of its network.
        task: What it removes.
        file: The file's name.
        address: The page or file that its authors link to.
        repository: Where they say so.
        licence: Of the repository; none of them licenses the weights apart.
        figure: What they or their paper measured, PSNR / SSIM.
        arguments: Of the network: weights that contradict them are of another model.
        sha256: Where it is known.
        size: Bytes, where they are known.
        missing: Why this package cannot run it; empty where it can.
        note: What else to know.
    """

    name: str
    network: str
    task: str
    file: str
    address: str
    repository: str
    licence: str
    figure: str = "see the repository"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    size: Optional[int] = None
    missing: str = ""
    note: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether the address is a folder of Google Drive, which cannot be fetched like a file."""
        return "/folders/" in self.address


def published_model(name: str) -> PublishedModel:
    """Return the model of a name.

    Raises:
        OptionError: There is none of that name; the text says which is nearest.

    Example:
        >>> published_model("nafnet_gopro_w32").file
        'NAFNet-GoPro-width32.pth'
    """
    if name not in MODELS:
        raise OptionError(one_of(name, MODELS, "model"))
    return MODELS[name]


def _file(identity: str) -> str:
    return f"https://drive.google.com/file/d/{identity}/view"


def _folder(identity: str) -> str:
    return f"https://drive.google.com/drive/folders/{identity}"


_GOPRO = {"middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1, 1, 1, 1]}
_SIDD = {"middle_blk_num": 12, "enc_blk_nums": [2, 2, 4, 8], "dec_blk_nums": [2, 2, 2, 2]}
_DCPT_FOLDER = _folder("17XKKgX3gbEWoma6ZQeRh8Dfazxy1iQpj")
_FIVE = "Rain, noise, haze, low light and motion blur."
_FIVE_NAMED = f"{_FIVE} The file's name is taken from its neighbours' names."
_TEN = "Noise, motion and defocus blur, JPEG, haze, snow, rain, mosaic, low light and holes."
_ACADEMIC = "Academic Public License, non-commercial"
_NONE_STATED = "none stated"
_NAME_IS_OURS = "The authors' own name of the file is not known here; any one file of weights in the folder is taken."


def _nafnet(name: str, task: str, file: str, identity: str, figure: str, **arguments: Any) -> PublishedModel:
    repository = "https://github.com/megvii-research/NAFNet"
    return PublishedModel(f"nafnet_{name}", "NAFNet", task, file, _file(identity), repository, "MIT", figure, arguments)


def _restormer(name: str, task: str, file: str, address: str, **others: Any) -> PublishedModel:
    repository = "https://github.com/swz30/Restormer"
    given = {"arguments": {"LayerNorm_type": "WithBias"}, **others}
    return PublishedModel(f"restormer_{name}", "Restormer", task, file, address, repository, _ACADEMIC, **given)


def _dcpt(network: str, setting: str, task: str, figure: str, **others: Any) -> PublishedModel:
    label = f"dcpt_{network.lower().replace('dcpt', '')}_{setting}"
    repository = "https://github.com/MILab-PKU/dcpt"
    return PublishedModel(
        label, network, task, f"{label}.pth", _DCPT_FOLDER, repository, _NONE_STATED, figure, **others
    )


def _mclir(name: str, network: str, task: str, identity: str, figure: str, **others: Any) -> PublishedModel:
    label, repository = f"mclir_{name}", "https://github.com/Aitical/MCLIR"
    given = {"note": _NAME_IS_OURS, **others}
    return PublishedModel(
        label, network, task, f"{label}.pth", _file(identity), repository, _NONE_STATED, figure, **given
    )


_GAUSSIAN = _folder("1Qwsjyny54RZWa7zC4Apg7exixLBo4uF0")
_DEFOCUS = _folder("1bRBG8DG_72AGA6-eRePvChlT5ZO4cwJ4")
_BIAS_FREE = {"LayerNorm_type": "BiasFree"}

#: By name, in the order in which they are listed.
MODELS: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        _nafnet("gopro_w32", "motion blur", "NAFNet-GoPro-width32.pth", "1Fr2QadtDCEXg6iwWX8OzeZLbHOx2t5Bj",
                "GoPro 32.8705 / 0.9606", width=32, **_GOPRO),
        _nafnet("gopro_w64", "motion blur", "NAFNet-GoPro-width64.pth", "1S0PVRbyTakYY9a82kujgZLbMihfNBLfC",
                "GoPro 33.7103 / 0.9668", width=64, **_GOPRO),
        _nafnet("sidd_w32", "real noise", "NAFNet-SIDD-width32.pth", "1lsByk21Xw-6aW7epCwOQxvm6HYCQZPHZ",
                "SIDD 39.9672 / 0.9599", width=32, **_SIDD),
        _nafnet("sidd_w64", "real noise", "NAFNet-SIDD-width64.pth", "14Fht1QQJ2gMlk4N1ERCRuElg8JfjrWWR",
                "SIDD 40.3045 / 0.9614", width=64, **_SIDD),
        _nafnet("reds_w64", "motion blur with JPEG", "NAFNet-REDS-width64.pth", "14D4V4raNYIOhETfcuuLI3bGLB-OYIv6X",
                "REDS 29.0903 / 0.8671", width=64, **_GOPRO),
        _restormer("deraining", "rain", "deraining.pth", _folder("1ZEDDEVW0UgkpWi-N4Lj_JUoVChGXCu_u")),
        _restormer("motion_deblurring", "motion blur", "motion_deblurring.pth",
                   _folder("1czMyfRTQDX3j3ErByYeZ1PM4GVLbJeGK")),
        _restormer("defocus", "defocus blur", "single_image_defocus_deblurring.pth", _DEFOCUS),
        _restormer("defocus_dual_pixel", "defocus blur of dual-pixel pairs", "dual_pixel_defocus_deblurring.pth",
                   _DEFOCUS, arguments={"inp_channels": 6, "dual_pixel_task": True}, note=_NAME_IS_OURS,
                   missing="it takes the two views of a dual-pixel camera, six channels, and pictures have three"),
        _restormer("denoising", "Gaussian noise of any strength", "gaussian_color_denoising_blind.pth", _GAUSSIAN,
                   arguments=_BIAS_FREE),
        *(_restormer(f"denoising_sigma{sigma}", f"Gaussian noise of sigma {sigma}",
                     f"gaussian_color_denoising_sigma{sigma}.pth", _GAUSSIAN, arguments=_BIAS_FREE)
          for sigma in (15, 25, 50)),
        _restormer("real_denoising", "real noise", "real_denoising.pth", _file("1FF_4NTboTWQ7sHCq4xhyLZsSl0U0JfjH"),
                   arguments=_BIAS_FREE),
        PublishedModel(
            "promptir_3d", "PromptIR", "noise, rain, haze", "model.ckpt", _file("1j-b5Od70pGF7oaCqKAfUzmf-N-xEAjYl"),
            "https://github.com/va1shn9v/PromptIR", _ACADEMIC, note="Also on the releases page of the repository."),
        _dcpt("NAFNet", "5d", "five degradations", "mean of five sets 29.84 / 0.914", note=_FIVE_NAMED),
        _dcpt("Restormer", "5d", "five degradations", "mean of five sets 30.04 / 0.911", note=_FIVE_NAMED),
        _dcpt("PromptIR", "5d", "five degradations", "mean of five sets 30.31 / 0.911", note=_FIVE_NAMED),
        _dcpt("DCPTSwinIR", "5d", "five degradations", "mean of five sets 28.47 / 0.894", note=_FIVE),
        _dcpt("NAFNet", "10d", "ten degradations", "mean of ten sets 29.72 / 0.888", note=_TEN),
        _dcpt("NAFNet", "cdd", "mixtures of low light, haze, rain, snow", "CDD-11 30.66 / 0.891",
              sha256="e837fefcd735051f29ecfa45deea5e219d52ecf29dcda94bd4d5afb862ee8ca0",
              note="The hash is from issue 15 of the repository."),
        _mclir("edsr", "EDSR", "super-resolution x4", "1U4HkdIgqBWcNnRBrdvfzhfVFvbz8vWLq", "Urban100 26.12 / 0.7878",
               missing="EDSR is BasicSR's network and is not recognised from its weights; build it there"),
        _mclir("swinir_light", "SwinIR", "super-resolution x4", "1mXXbsUBxQMiBO0A3BS7i_MD8TswU6TmA",
               "Urban100 26.57 / 0.8010",
               arguments={"upscale": 4, "upsampler": "pixelshuffledirect", "embed_dim": 60, "depths": [6] * 4,
                          "num_heads": [6] * 4, "window_size": 8, "mlp_ratio": 2.0},
               note=f"SwinIR is BasicSR's: pip install basicsr-plugins[basicsr]. {_NAME_IS_OURS}"),
        _mclir("swinir", "SwinIR", "super-resolution x4", "12FooL4KwL0TtqBNFuksV2Hjk82RTUIno",
               "Urban100 27.14 / 0.8176",
               arguments={"upscale": 4, "upsampler": "pixelshuffle", "embed_dim": 180, "depths": [6] * 6,
                          "num_heads": [6] * 6, "window_size": 8, "mlp_ratio": 2.0},
               note=f"SwinIR is BasicSR's: pip install basicsr-plugins[basicsr]. {_NAME_IS_OURS}"),
        _mclir("ffanet", "FFANet", "haze", "1vm9wTFJXOZWVFSIpBZSp0jl1cbK6a8_7", "SOTS-indoor 39.80 / 0.9947",
               arguments={"blocks": 19, "unit_range": True}),
    )
}  # fmt: skip
