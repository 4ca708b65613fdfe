"""What this package provides gets into BasicSR's registries, and no stock entry is ever touched."""

from __future__ import annotations

import logging

import pytest

import basicsr_plugins
from basicsr_plugins.core import registration
from basicsr_plugins.core.errors import OptionError
from basicsr_plugins.launch.register import register_all


@pytest.fixture(autouse=True)
def _registered():
    basicsr_plugins.register()


@pytest.fixture
def forget():
    """Take test entries out of the registries again."""
    names: list[tuple[str, str]] = []
    yield names
    for kind, name in names:
        registration._provided[kind].pop(name, None)
        registration._renamed[kind].pop(name, None)
        for label in (name, f"{name}_basicsr_plugins"):
            registration._registries[kind]._obj_map.pop(label, None)


def test_everything_provided_is_registered():
    from basicsr.utils import registry

    for kind in registration.BASICSR_KINDS:
        known = dict(iter(getattr(registry, f"{kind.upper()}_REGISTRY")))
        provided = registration.provided(kind)
        assert provided
        for name, thing in provided.items():
            assert known[registration.renamed(kind).get(name, name)] is thing


def test_registering_twice_is_harmless():
    from basicsr.utils.registry import ARCH_REGISTRY

    before = dict(iter(ARCH_REGISTRY))
    assert basicsr_plugins.register() == basicsr_plugins.__version__
    registration.disconnect()
    basicsr_plugins.register()
    assert dict(iter(ARCH_REGISTRY)) == before


def test_a_registration_that_was_broken_off_is_tried_again(monkeypatch):
    registration.disconnect()
    with monkeypatch.context() as patch:
        patch.setattr("basicsr_plugins.launch.patches.check_options_first", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            register_all()
    assert not registration._registries
    register_all()
    assert registration._registries


def test_what_was_provided_before_is_handed_over(forget):
    from basicsr.utils.registry import LOSS_REGISTRY

    forget.append(("loss", "EarlyLoss"))
    registration.disconnect()

    @registration.provides("loss")
    class EarlyLoss:
        pass

    assert "EarlyLoss" not in LOSS_REGISTRY
    register_all()
    assert LOSS_REGISTRY.get("EarlyLoss") is EarlyLoss


def test_a_name_that_is_taken_stays_and_ours_gets_a_suffix(forget, caplog):
    from basicsr.utils.registry import LOSS_REGISTRY

    forget.append(("loss", "TakenLoss"))

    class TakenLoss:
        pass

    LOSS_REGISTRY._do_register("TakenLoss", TakenLoss)
    with caplog.at_level(logging.WARNING, "basicsr"):

        @registration.provides("loss", "TakenLoss")
        class Ours:
            pass

    assert LOSS_REGISTRY.get("TakenLoss") is TakenLoss
    assert LOSS_REGISTRY.get("TakenLoss_basicsr_plugins") is Ours
    assert registration.renamed("loss")["TakenLoss"] == "TakenLoss_basicsr_plugins"
    assert caplog.text.count("TakenLoss") == 2
    assert "TakenLoss_basicsr_plugins" in caplog.text


def test_lookup_finds_ours_and_stock():
    assert registration.lookup("arch", "Restormer").__module__.startswith("basicsr_plugins")
    assert registration.lookup("arch", "SRVGGNetCompact").__module__.startswith("basicsr.")
    with pytest.raises(OptionError, match=r"network_g\.type: unknown arch 'Restormr'\. Did you mean 'Restormer'"):
        registration.lookup("arch", "Restormr", "network_g.type")


def test_a_degradation_is_a_kind_of_our_own():
    assert "GaussianNoise" in registration.provided("degradation")
    assert registration.lookup("degradation", "GaussianNoise") is registration.provided("degradation")["GaussianNoise"]
    with pytest.raises(OptionError, match="unknown kind 'degradations'"):
        registration.provides("degradations")
