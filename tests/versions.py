"""Tests that an older torch or PEFT cannot run, because what they test is not in it; the package refuses it there."""

from __future__ import annotations

from importlib.metadata import version

from packaging.version import Version

FP16 = ("torch", "2.3", "fp16 on the CPU")
HALF_PRODUCT = ("torch", "2.1", "a float16 product on the CPU")

#: Part of a test's node id: the package, the first version that can run it, and why.
NEEDS = {
    # refused below in one sentence, see training/precision.py and models/restoration_model.py
    "test_precision.py::test_half_precisions_cover_the_forward_pass_and_leave_weights_alone[fp16": FP16,
    "test_precision.py::test_fp16_gradients": FP16,
    "test_precision.py::test_an_fp16_overflow": FP16,
    "test_precision.py::test_endless_fp16_overflow": FP16,
    "test_resume.py::test_resume_with[fp16]": FP16,
    "test_every_option_file.py::test_an_option_file_runs_scaled_down[spn_dehazeformer": FP16,
    "test_exporter.py::test_half_precision_takes_and_gives_float32[pt-fp16": FP16,
    "test_exporter.py::test_half_precision_takes_and_gives_float32[onnx-fp16": FP16,
    "test_exporter.py::test_half_precision_onnx_of_every_network": FP16,
    "test_restormer_arch.py::test_channel_similarity_is_the_cosine[dtype2]": HALF_PRODUCT,
    "test_restormer_arch.py::test_half_precision_sums": HALF_PRODUCT,
    "test_precision.py::test_bf16_is_used_by_the_model": ("torch", "2.1", "PReLU in bf16"),
    "test_compile_changes_no_key_and_no_result": ("torch", "2.2", "compiling a module in place"),
    "test_arguments_reach_the_optimizer": ("torch", "2.4", "fused optimizers on the CPU"),
    "test_numpy_numbers_and_namespaces": ("torch", "2.5", "numpy numbers in a safe file"),
    "test_attach.py::test_trying_a_method_on_convolutions": ("peft", "0.11", "VeRA"),
    "[type=vera": ("peft", "0.11", "VeRA"),
    "test_vera_on_convolutions": ("peft", "0.11", "VeRA"),
    "test_attach.py::test_options_are_checked": ("peft", "0.11", "VeRA"),
    "test_attach.py::test_methods_that_are_of_no_use": ("peft", "0.11", "the methods that are refused"),
    "test_other_methods_need_the_network": ("peft", "0.11", "VeRA"),
    "test_the_option_file_says_which_network": ("peft", "0.11", "biases that are trained and saved"),
}  # fmt: skip


def missing(node_id: str) -> str:
    """Return why a test cannot run here, or nothing."""
    for part, (package, first, reason) in NEEDS.items():
        if part in node_id and Version(version(package)) < Version(first):
            return f"{package} {first}: {reason}"
    return ""
