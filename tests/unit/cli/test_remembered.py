"""One store, one truth about where: a directory remembers where it was served from."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.cli.locations import local_settings, require_given_store
from kirana.cli.remembered import remember, require_same, shown_stores
from kirana.errors import ConfigurationError
from kirana.urls import without_password

REDIS = "redis://127.0.0.1:6379/3"
NOTHING: dict[str, str] = {}


def serve(folder: Path, **options: str) -> None:
    """Remember what `kirana up` would with these options."""
    remember(folder, local_settings(folder, options, environment=NOTHING))


def test_a_directory_that_was_never_served_has_its_stores_inside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = local_settings(tmp_path, {}, environment=NOTHING)
    assert settings.features == f"lmdb://{tmp_path}/.kirana/data/features"
    serve(tmp_path)
    assert local_settings(tmp_path, {}, environment=NOTHING) == settings
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("features", REDIS),
        ("interactions", "lmdb:///elsewhere"),
        ("models", "file:///elsewhere"),
        ("catalog", "zk://127.0.0.1:2181/shop"),
    ],
)
def test_a_store_that_is_not_given_is_that_of_the_last_up_and_this_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, url: str
) -> None:
    serve(tmp_path, **{name: url})
    assert getattr(local_settings(tmp_path, {}, environment=NOTHING), name) == url
    said = capsys.readouterr().err
    assert f"{name}: {url}, as of the last 'kirana up'" in said
    assert f"--{name}" in said


def test_what_is_given_beats_what_is_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(tmp_path, features=REDIS)
    given = [
        local_settings(tmp_path, {"features": "memory://"}, environment=NOTHING),
        local_settings(tmp_path, {}, {"features": "memory://"}, environment=NOTHING),
        local_settings(tmp_path, {}, environment={"KIRANA_FEATURES": "memory://"}),
    ]
    assert {settings.features for settings in given} == {"memory://"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@127.0.0.1:6379/3",
        "redis://shop:hunter2@127.0.0.1:6379/3",
        "redis://127.0.0.1:6379/3?password=hunter2",
        "redis://127.0.0.1:6379/3?socket_timeout=1&password=hunter2",
    ],
)
def test_a_password_is_not_remembered_and_must_be_given_again(tmp_path: Path, url: str) -> None:
    serve(tmp_path, features=url)
    assert "hunter2" not in (tmp_path / ".kirana" / "stores.json").read_text()
    with pytest.raises(ConfigurationError, match="with a password") as caught:
        local_settings(tmp_path, {}, environment=NOTHING)
    assert caught.value.field == "features"
    assert "hunter2" not in caught.value.message
    assert local_settings(tmp_path, {"features": url}, environment=NOTHING).features == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:p@h:1/0", "redis://h:1/0"),
        ("redis://u:p@h:1/0?socket_timeout=1", "redis://u@h:1/0?socket_timeout=1"),
        ("redis://h:1/0?password=p", "redis://h:1/0"),
        ("redis://h:1/0?password=p&socket_timeout=1", "redis://h:1/0?socket_timeout=1"),
        ("lmdb:///a/b@c", "lmdb:///a/b@c"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_running_kirana_with_another_store_is_named(tmp_path: Path) -> None:
    serving = shown_stores(local_settings(tmp_path, {"features": REDIS}, environment=NOTHING))
    mine = local_settings(tmp_path, {}, environment=NOTHING)
    with pytest.raises(ConfigurationError) as caught:
        require_same(tmp_path, serving, mine, "features")
    assert caught.value.field == "features"
    assert REDIS in caught.value.message
    assert mine.features in caught.value.message
    require_same(tmp_path, serving, mine, "catalog", "models")
    require_same(tmp_path, {}, mine, "features")


def test_of_a_catalog_elsewhere_the_store_must_be_given(tmp_path: Path) -> None:
    zookeeper = {"catalog": "zk://127.0.0.1:2181/shop"}
    settings = local_settings(tmp_path, zookeeper, environment=NOTHING)

    def require(*given: str, **variables: str) -> None:
        options = dict.fromkeys(given, settings.features)
        require_given_store(settings, "features", tmp_path, options, variables)

    for served in (False, True):
        if served:
            serve(tmp_path)  # from a catalog in the directory, which says nothing of this one
        with pytest.raises(ConfigurationError, match="give --features") as caught:
            require()
        assert caught.value.field == "features"
        require("features")
        require(KIRANA_FEATURES=REDIS)
    serve(tmp_path, **zookeeper)
    require()


def test_a_command_hears_of_nothing_that_it_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(tmp_path, features="redis://:hunter2@127.0.0.1:6379/3", models="file:///elsewhere")
    uses = ("catalog", "models")
    settings = local_settings(tmp_path, {}, environment=NOTHING, uses=uses)
    assert settings.models == "file:///elsewhere"
    assert "features" not in capsys.readouterr().err
