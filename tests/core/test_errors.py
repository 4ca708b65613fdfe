"""The sentence that helps with a misspelt name, and what the command line makes of an error."""

from __future__ import annotations

import pytest

from basicsr_plugins.cli.main import main, one_message
from basicsr_plugins.core import errors


@pytest.mark.parametrize(
    ("given", "allowed", "hint"),
    [
        ("restormer", ["NAFNet", "Restormer"], "Did you mean 'Restormer'"),
        ("NAF_Net", ["NAFNet", "NAFNetLocal"], "Did you mean 'NAFNet'?"),
        ("adamw", ["Adam", "AdamW"], "Did you mean 'AdamW'?"),
        ("gt_siez", ["gt_size", "lq_size"], "'gt_size'"),
    ],
)
def test_the_nearest_name_is_suggested(given, allowed, hint):
    text = errors.one_of(given, allowed, "arch")
    assert text.startswith(f"unknown arch {given!r}.")
    assert hint in text
    assert f"Allowed: {', '.join(allowed)}." in text


def test_far_names_are_not_suggested_and_long_lists_are_cut():
    assert "Did you mean" not in errors.one_of("xyz", ["Restormer"], "arch")
    text = errors.one_of("xyz", [f"name{index:03d}" for index in range(60)])
    assert "name039, ... (60 in all)" in text
    assert "name040" not in text
    assert "Allowed: nothing." in errors.one_of("x", [])


def test_every_error_is_a_plugin_error_and_an_everyday_one():
    kinds = {"OptionError": ValueError, "DataError": ValueError, "CheckpointError": ValueError,
             "DependencyError": ImportError, "TrainingError": RuntimeError}  # fmt: skip
    for name, everyday in kinds.items():
        assert issubclass(getattr(errors, name), (errors.PluginError, everyday))


def test_a_workers_traceback_is_peeled_off():
    text = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    error = errors.DataError(f"{text}basicsr_plugins.core.errors.DataError: a.png: the file is empty (0 bytes).")
    assert one_message(error) == "a.png: the file is empty (0 bytes)."


def test_the_command_line_prints_one_message(capsys):
    assert main(["list", "archs"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("basicsr-plugins list: unknown kind 'archs'. Did you mean 'arch'?")
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    ("given", "names", "meant"),
    [
        ("learning_rate", ["params", "lr", "betas"], "lr"),
        ("hook_names", ["target_class", "feature_layers"], "feature_layers"),
        ("neg_iter", ["decay", "steps", "start"], "steps"),
        ("batch_size", ["batch_size_per_gpu", "name"], "batch_size_per_gpu"),
    ],
)
def test_what_other_programs_call_an_option_leads_to_ours(given, names, meant):
    assert f"Did you mean {meant!r}?" in errors.one_of(given, names, "option")
    assert "Did you mean" not in errors.one_of(given, ["zzz"], "option")
