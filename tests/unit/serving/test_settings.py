"""Settings from a file, environment variables and command options, and their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kirana.cli.locations import local_settings
from kirana.errors import ConfigurationError
from kirana.serving.placement import SPREADABLE
from kirana.serving.settings import PREFIX, Settings, parse_ports, read_settings
from kirana.urls import folder_of

GIVEN: dict[str, Any] = {
    "catalog": "dir:///shop",
    "features": "lmdb:///shop/features",
    "interactions": "lmdb:///shop/interactions",
    "models": "file:///shop/models",
}


def refusal(given: dict[str, Any], environment: dict[str, str] | None = None) -> ConfigurationError:
    """Assert that the settings are refused; return the error."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings(given, environment or {})
    return caught.value


def test_four_urls_are_enough() -> None:
    settings = read_settings(GIVEN, {})
    assert settings.model_dump() == {
        **GIVEN,
        "placement": "fused",
        "replicas": None,
        "direct_ports": "20000-20999",
        "direct_host": "",
        "timeout_ms": 5_000,
        "max_body_bytes": 8 << 20,
        "max_ongoing": 2_048,
        "features_hot": "off",
        "features_hot_ttl_s": 86_400,
        "features_hot_bound_s": 60.0,
        "features_unavailable": "defaults",
        "cache_bytes": 64 << 20,
        "cache_fresh_ms": 1_000,
        "kept_revisions": 100,
        "streams": "off",
        "streams_acknowledge": "store",
        "streams_consumers": 1,
        "streams_wait_s": 60.0,
        "archive": "off",
        "archive_period_s": 60.0,
    }
    assert settings.spread == frozenset()
    assert settings.direct_range == range(20_000, 21_000)


def test_a_variable_overrides_a_file() -> None:
    environment = {
        "KIRANA_FEATURES": "lmdb:///elsewhere",
        "KIRANA_REPLICAS": "4",
        "KIRANA_PLACEMENT": "spread",
        "KIRANA_TIMEOUT_MS": "250",
        "KIRANA_MAX_ONGOING": "7",
        "KIRANA_DIRECT_PORTS": "off",
        "KIRANA_DIRECT_HOST": "::1",
    }
    settings = read_settings({**GIVEN, "replicas": 2, "direct_ports": "80-90"}, environment)
    assert settings.features == "lmdb:///elsewhere"
    assert (settings.replicas, settings.placement, settings.timeout_ms) == (4, "spread", 250)
    assert (settings.max_ongoing, settings.direct_host) == (7, "::1")
    assert settings.direct_range == range(0)
    assert settings.models == GIVEN["models"]


NUMBERS = ("replicas", "timeout_ms", "max_ongoing")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_option_overrides_a_variable_which_overrides_a_file(name: str) -> None:
    values = {
        "placement": ["spread", "fused", "models=spread"],
        "direct_ports": ["1-2", "3-4", "off"],
        **{number: ["1", "2", "3"] for number in (*NUMBERS, "cache_bytes", "cache_fresh_ms")},
        "features_unavailable": ["error", "defaults", "error"],
        "features_hot_ttl_s": ["1", "2", "3"],
        "features_hot_bound_s": ["1.0", "1.5", "2.0"],
        "max_body_bytes": ["1025", "1026", "1027"],
        "kept_revisions": ["2", "3", "4"],
        "streams_acknowledge": ["store", "kafka", "store"],
        "streams_consumers": ["1", "2", "3"],
        "streams_wait_s": ["1.0", "1.5", "2.0"],
        "archive_period_s": ["1.0", "1.5", "2.0"],
    }
    in_file, in_variable, in_option = values.get(name, ["file", "variable", "option"])
    given, environment = {**GIVEN, name: in_file}, {PREFIX + name.upper(): in_variable}
    results = [
        getattr(read_settings(given, {}), name),
        getattr(read_settings(given, environment), name),
        getattr(read_settings(given, environment, {name: in_option}), name),
    ]
    assert list(map(str, results)) == [in_file, in_variable, in_option]


def test_options_that_are_not_given_override_nothing() -> None:
    environment = {"KIRANA_REPLICAS": "4"}
    assert read_settings(GIVEN, environment).replicas == 4
    assert read_settings(GIVEN, environment, {}).replicas == 4


def test_variables_alone_are_enough() -> None:
    environment = {f"KIRANA_{name.upper()}": value for name, value in GIVEN.items()}
    assert read_settings({}, environment).model_dump(include=set(GIVEN)) == GIVEN


def test_an_empty_variable_is_ignored() -> None:
    assert read_settings(GIVEN, {"KIRANA_FEATURES": ""}).features == GIVEN["features"]


def test_other_variables_are_ignored() -> None:
    environment = {"FEATURES": "x", "KIRANA_TRACE": "1", "kirana_features": "x"}
    assert read_settings(GIVEN, environment) == read_settings(GIVEN, {})


def test_the_given_settings_are_not_changed() -> None:
    given = dict(GIVEN)
    read_settings(given, {"KIRANA_FEATURES": "lmdb:///elsewhere"})
    assert given == GIVEN


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_a_missing_url_is_named_with_its_variable(name: str) -> None:
    error = refusal({key: value for key, value in GIVEN.items() if key != name})
    assert error.field == name
    assert (
        f"{name}: no value is given: set the argument, or the variable KIRANA_{name.upper()}"
        in error.message
    )


def test_an_unknown_setting_is_refused_with_a_suggestion() -> None:
    error = refusal({**GIVEN, "replica": 2})
    assert error.field == "replica"
    assert "did you mean 'replicas'?" in error.message
    with pytest.raises(ConfigurationError, match="did you mean 'replicas'") as caught:
        read_settings(GIVEN, {}, {"replica": 2})
    assert caught.value.field == "replica"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("placement", "fuzed"),
        ("placement", None),
        ("placement", ""),
        ("placement", "models"),
        ("placement", "model=spread"),
        ("placement", "models=2"),
        ("placement", ["models"]),
        ("replicas", 0),
        ("replicas", 65),
        ("replicas", "many"),
        ("replicas", 1.5),
        ("timeout_ms", 0),
        ("timeout_ms", 600_001),
        ("max_body_bytes", 1_023),
        ("max_ongoing", 0),
        ("max_ongoing", 100_001),
        ("direct_ports", ""),
        ("direct_ports", True),
        ("direct_ports", None),
        ("direct_ports", "OFF"),
        ("direct_ports", 0),
        ("direct_ports", 70_000),
        ("direct_ports", [20_000, 20_999]),
        ("direct_host", None),
        ("features", 5),
        ("catalog", None),
    ],
)
def test_an_invalid_value_is_named(name: str, value: object) -> None:
    error = refusal({**GIVEN, name: value})
    assert error.field == name
    assert error.message.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("replicas", "two"), ("placement", "FUSED"), ("direct_ports", "on"), ("max_ongoing", "-1")],
)
def test_an_invalid_variable_is_named(name: str, value: str) -> None:
    assert refusal(GIVEN, {f"KIRANA_{name.upper()}": value}).field == name


@pytest.mark.parametrize(
    ("placement", "spread"),
    [
        ("fused", set()),
        ("spread", set(SPREADABLE)),
        ("models=spread,features=spread,flows=fused", {"models", "features"}),
    ],
)
def test_a_placement_may_list_parts(placement: str, spread: set[str]) -> None:
    settings = read_settings({**GIVEN, "placement": placement}, {})
    assert settings.placement == placement
    assert settings.spread == spread


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ("off", range(0)),
        # YAML reads `off` as false.
        (False, range(0)),
        ("20000", range(20_000, 20_001)),
        (20_000, range(20_000, 20_001)),
        ("8000-8001", range(8_000, 8_002)),
        ("1-65535", range(1, 65_536)),
    ],
)
def test_direct_ports_are_a_range_a_single_port_or_off(given: object, ports: range) -> None:
    assert read_settings({**GIVEN, "direct_ports": given}, {}).direct_range == ports


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("20000-20999", range(20_000, 21_000)),
        (" 20000 - 20999 ", range(20_000, 21_000)),
        ("5-5", range(5, 6)),
        ("5", range(5, 6)),
        ("00080", range(80, 81)),
    ],
)
def test_ports_are_parsed(text: str, ports: range) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize(
    "text",
    ["", " ", "-", "--", "20000-", "-20000", "20-10", "0", "0-10", "65536", "65535-65536", "-1",
     "1-2-3", "1.5", "1e3", "0x10", "+5", "1_000", "1,2", "a-b", "many", "\u0663", "\u00b2",
     "20000\u201320999", "123456", "9" * 5000, "20000:20999", "1\x00", "5-\n-6"],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
def test_an_invalid_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="like 20000-20999 or 'off'") as caught:
        parse_ports(text)
    assert caught.value.field == "direct_ports"


def test_settings_cannot_be_changed() -> None:
    settings = read_settings(GIVEN, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.replicas = 2


@pytest.mark.parametrize("added", [{}, {"direct_ports": "off"}, {"placement": "models=spread"}])
def test_settings_can_be_serialized_and_read_back(added: dict[str, Any]) -> None:
    settings = read_settings({**GIVEN, **added}, {})
    assert Settings.model_validate(settings.model_dump()) == settings


def test_the_settings_of_a_directory_point_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GIVEN:
        monkeypatch.delenv(f"KIRANA_{name.upper()}", raising=False)
    settings = local_settings(tmp_path, {})
    assert settings.catalog == f"dir://{tmp_path}"
    assert settings.features == f"lmdb://{tmp_path}/.kirana/data/features"
    assert settings.models == f"file://{tmp_path}/models"


def test_options_override_variables_which_override_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIRANA_FEATURES", "lmdb:///from/variable")
    monkeypatch.setenv("KIRANA_MODELS", "file:///from/variable")
    settings = local_settings(tmp_path, {"models": "file:///given"})
    assert settings.features == "lmdb:///from/variable"
    assert settings.models == "file:///given"


def test_variables_override_a_file_which_overrides_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"KIRANA_{name.upper()}", raising=False)
    monkeypatch.setenv("KIRANA_FEATURES", "lmdb:///from/variable")
    file = {"features": "lmdb:///from/file", "models": "file:///from/file", "replicas": 3}
    settings = local_settings(tmp_path, {"replicas": 2}, file)
    assert settings.features == "lmdb:///from/variable"
    assert settings.models == "file:///from/file"
    assert settings.replicas == 2
    assert settings.catalog == f"dir://{tmp_path}"


@pytest.mark.parametrize("name", ["my shop", "shop#2", "shop?", "100%25", "caf\u00e9", "a&b=c"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    settings = local_settings(directory, {})
    assert folder_of(settings.catalog, "dir", setting="catalog") == directory
    assert folder_of(settings.models, "file", setting="models") == directory / "models"


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the directory does not exist"):
        local_settings(tmp_path / "nowhere", {})
