"""Sections that carry the result of their check."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest

from basicsr_plugins.core.checked import CheckedSection, result_of, settings_of
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.core.options import option


@dataclass
class Settings:
    size: int = option(1, "size")


def test_settings_are_read_once_and_survive_a_deep_copy():
    settings = Settings(5)
    section = CheckedSection({"size": 5}, settings)
    assert settings_of(section, Settings, "train") is settings
    assert settings_of(copy.deepcopy({"train": section})["train"], Settings, "train") is settings


def test_a_changed_section_is_read_again():
    section = CheckedSection({"size": 5, "nested": {"a": [1]}}, Settings(5))
    section["nested"]["a"].append(2)
    assert result_of(section, Settings) is None
    assert type(copy.deepcopy(section)) is not CheckedSection
    section = CheckedSection({"size": 5}, Settings(5))
    section["size"] = 7
    assert settings_of(section, Settings, "train") == Settings(7)
    section["sise"] = 7
    with pytest.raises(OptionError, match=r"train\.sise"):
        settings_of(section, Settings, "train")


def test_a_result_of_another_kind_is_not_taken():
    assert result_of(CheckedSection({}, 3), Settings) is None
    assert settings_of(None, Settings, "train") == Settings()


def test_it_is_a_plain_mapping_for_everybody_else():
    section = CheckedSection({"size": 5}, Settings(5))
    assert section == {"size": 5}
    assert pickle.loads(pickle.dumps(section)) == {"size": 5}
