"""Random mistakes in shipped option files: one sentence each, no folder; what passes runs (tools/fuzz_options.py)."""

from __future__ import annotations

import copy
import importlib.util
import logging
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_options.py"
FILES = (
    "finetune_nafnet.yml", "dcpt_nafnet_cdd11_primitives.yml", "demo/dcpt_nafnet.yml", "spn_edsr_x2.yml",
    "test_nafnet_5d.yml", "dcpt_rcan.yml",
)  # fmt: skip


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    spec = importlib.util.spec_from_file_location("fuzz_options", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield module
    logging.disable(level)


@pytest.mark.filterwarnings("ignore")
def test_no_mutant_ends_in_a_traceback(tool, tmp_path):
    fuzzer = tool.Fuzzer(tmp_path, FILES)
    fuzzer.run(count=60, seed=3, train=2)
    assert not fuzzer.findings, "\n".join(f"{where}\n{fuzzer.examples[where]}" for where in fuzzer.findings)
    assert fuzzer.results["accepted"] >= 2
    assert fuzzer.results["refused"] > 40
    assert sum(times for what, times in fuzzer.results.items() if what.startswith("run: ")) == 2


@pytest.mark.filterwarnings("ignore")
def test_what_is_not_changed_passes(tool, tmp_path):
    fuzzer = tool.Fuzzer(tmp_path, FILES[:2])
    for name in fuzzer.files:
        fuzzer.mutant(name, "0")
        assert fuzzer.check(fuzzer.bases[name], is_train=True, rehearsed=True) == "accepted", fuzzer.findings


#: Mutants that ended in a traceback when they were found: where, and what stood there.
FOUND = [
    ("finetune_nafnet.yml", ("datasets", None), {}),
    ("finetune_nafnet.yml", ("datasets", 3), {}),
    ("finetune_nafnet.yml", ("path", 7), None),
    ("finetune_nafnet.yml", (2.5,), 1),
    ("finetune_nafnet.yml", ("model_type",), {"a": 1}),
    ("finetune_nafnet.yml", ("network_g", "type"), ["NAFNet"]),
    ("finetune_nafnet.yml", ("datasets", "train", "type"), [1]),
    ("finetune_nafnet.yml", ("train", "pixel_opt", "type"), {"a": 1}),
    ("finetune_nafnet.yml", ("train", "optim_g", "type"), ["Adam"]),
    ("finetune_nafnet.yml", ("datasets", "train", "dataset_enlarge_ratio"), 10**18),
    ("dcpt_nafnet_cdd11_primitives.yml", ("path", "param_key_g"), {"a": 1}),
    ("dcpt_swinir.yml", ("network_g", "num_heads"), {"a": 1}),
    ("dcpt_swinir.yml", ("network_g", "num_heads", 0), 0),
    ("dcpt_rcan.yml", ("network_g", "img_range"), 0),
    ("dcpt_swinir.yml", ("network_g", "img_range"), {"img_range": 1.0}),
    ("dcpt_swinir.yml", ("network_g", "resi_connection"), ["1conv"]),
    ("dcpt_swinir.yml", ("network_g", "num_heads", 1), 5),
    ("finetune_nafnet.yml", ("manual_seed",), 10**18),
    ("spn_swinir_x4.yml", ("datasets", "train", "name"), None),
    ("finetune_nafnet.yml", ("val", "metrics", "psnr", "crop_border"), []),
    ("finetune_nafnet.yml", ("train", "pixel_opt", "loss_weight"), None),
]


@pytest.mark.filterwarnings("ignore")
def test_what_the_fuzzer_has_found_is_refused_in_one_sentence(tool, tmp_path):
    fuzzer = tool.Fuzzer(tmp_path)
    for name, path, value in FOUND:
        opt, _ = fuzzer.mutant(name, "0")
        opt = copy.deepcopy(fuzzer.bases[name])
        tool.parent_of(opt, path)[path[-1]] = value
        result = fuzzer.check(opt, is_train=True, rehearsed=True)
        assert result == "refused", (name, path, result, fuzzer.findings)
