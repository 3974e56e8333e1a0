"""Settings: a file's, overridden by variables; what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kirana.cli.locations import local_settings
from kirana.errors import ConfigurationError
from kirana.settings import Settings, read_settings

GIVEN: dict[str, Any] = {
    "catalog": "dir:///shop",
    "features": "lmdb:///shop/features",
    "interactions": "lmdb:///shop/interactions",
    "models": "file:///shop/models",
}


def refusal(given: dict[str, Any], environment: dict[str, str] | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(given, environment or {})
    return caught.value


def test_four_urls_are_enough() -> None:
    settings = read_settings(GIVEN, {})
    assert settings.model_dump() == {
        **GIVEN,
        "placement": "fused",
        "replicas": 1,
        "timeout_ms": 5_000,
        "max_body_bytes": 8 << 20,
    }


def test_a_variable_overrides_a_file() -> None:
    environment = {
        "KIRANA_FEATURES": "lmdb:///elsewhere",
        "KIRANA_REPLICAS": "4",
        "KIRANA_PLACEMENT": "spread",
        "KIRANA_TIMEOUT_MS": "250",
    }
    settings = read_settings({**GIVEN, "replicas": 2}, environment)
    assert settings.features == "lmdb:///elsewhere"
    assert (settings.replicas, settings.placement, settings.timeout_ms) == (4, "spread", 250)
    assert settings.models == GIVEN["models"]


def test_variables_alone_are_enough() -> None:
    environment = {f"KIRANA_{name.upper()}": value for name, value in GIVEN.items()}
    assert read_settings({}, environment).model_dump(include=set(GIVEN)) == GIVEN


def test_an_empty_variable_says_nothing() -> None:
    assert read_settings(GIVEN, {"KIRANA_FEATURES": ""}).features == GIVEN["features"]


def test_other_variables_are_no_settings() -> None:
    environment = {"FEATURES": "x", "KIRANA_TRACE": "1", "kirana_features": "x"}
    assert read_settings(GIVEN, environment) == read_settings(GIVEN, {})


def test_what_is_given_stays_as_it_was() -> None:
    given = dict(GIVEN)
    read_settings(given, {"KIRANA_FEATURES": "lmdb:///elsewhere"})
    assert given == GIVEN


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_a_missing_url_is_named_with_its_variable(name: str) -> None:
    error = refusal({key: value for key, value in GIVEN.items() if key != name})
    assert error.field == name
    assert f"{name}: it is missing: set it, or KIRANA_{name.upper()}" in error.message


def test_an_unknown_setting_names_the_one_that_was_meant() -> None:
    error = refusal({**GIVEN, "replica": 2})
    assert error.field == "replica"
    assert "did you mean 'replicas'?" in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("placement", "fuzed"),
        ("placement", None),
        ("replicas", 0),
        ("replicas", 65),
        ("replicas", "many"),
        ("replicas", 1.5),
        ("timeout_ms", 0),
        ("timeout_ms", 600_001),
        ("max_body_bytes", 1_023),
        ("features", 5),
        ("catalog", None),
    ],
)
def test_a_value_that_does_not_fit_is_named(name: str, value: object) -> None:
    error = refusal({**GIVEN, name: value})
    assert error.field == name
    assert error.message.startswith(f"{name}: ")


@pytest.mark.parametrize(("name", "value"), [("replicas", "two"), ("placement", "FUSED")])
def test_a_variable_that_does_not_fit_is_named(name: str, value: str) -> None:
    assert refusal(GIVEN, {f"KIRANA_{name.upper()}": value}).field == name


def test_settings_can_not_be_changed() -> None:
    settings = read_settings(GIVEN, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.replicas = 2


def test_settings_survive_being_sent(tmp_path: Path) -> None:
    settings = read_settings(GIVEN, {})
    assert Settings.model_validate(settings.model_dump()) == settings


def test_a_directory_keeps_all_its_parts_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GIVEN:
        monkeypatch.delenv(f"KIRANA_{name.upper()}", raising=False)
    settings = local_settings(tmp_path, {})
    assert settings.catalog == f"dir://{tmp_path}"
    assert settings.features == f"lmdb://{tmp_path}/.kirana/data/features"
    assert settings.models == f"file://{tmp_path}/models"


def test_what_is_given_beats_a_variable_and_a_variable_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIRANA_FEATURES", "lmdb:///from/variable")
    monkeypatch.setenv("KIRANA_MODELS", "file:///from/variable")
    settings = local_settings(tmp_path, {"models": "file:///given"})
    assert settings.features == "lmdb:///from/variable"
    assert settings.models == "file:///given"


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no directory"):
        local_settings(tmp_path / "nowhere", {})
