"""A catalog directory remembers the URLs of its last `kirana up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.cli.locations import local_settings, require_given_store
from kirana.cli.remembered import remember, require_same_stores, stores_without_passwords
from kirana.errors import ConfigurationError
from kirana.urls import without_password

REDIS = "redis://127.0.0.1:6379/3"
NOTHING: dict[str, str] = {}


def serve(folder: Path, **options: str) -> None:
    """Record the URLs that `kirana up` would record with these options."""
    remember(folder, local_settings(folder, options, environment=NOTHING))


def test_stores_are_inside_the_directory_by_default(
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
def test_a_store_that_is_not_given_is_taken_from_the_last_up_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, url: str
) -> None:
    serve(tmp_path, **{name: url})
    assert getattr(local_settings(tmp_path, {}, environment=NOTHING), name) == url
    note = capsys.readouterr().err
    assert f"{name}: using {url}, as the last 'kirana up' did" in note
    assert f"--{name}" in note


def test_a_given_store_overrides_the_remembered_one(
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
    with pytest.raises(ConfigurationError, match="the password of") as caught:
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


def test_a_store_that_differs_from_the_running_kirana_is_refused(tmp_path: Path) -> None:
    serving = stores_without_passwords(
        local_settings(tmp_path, {"features": REDIS}, environment=NOTHING)
    )
    settings = local_settings(tmp_path, {}, environment=NOTHING)
    with pytest.raises(ConfigurationError) as caught:
        require_same_stores(tmp_path, serving, settings, "features")
    assert caught.value.field == "features"
    assert REDIS in caught.value.message
    assert settings.features in caught.value.message
    require_same_stores(tmp_path, serving, settings, "catalog", "models")
    require_same_stores(tmp_path, {}, settings, "features")


def test_the_store_of_a_catalog_outside_the_directory_must_be_given(tmp_path: Path) -> None:
    zookeeper = {"catalog": "zk://127.0.0.1:2181/shop"}
    settings = local_settings(tmp_path, zookeeper, environment=NOTHING)

    def require(*given: str, **variables: str) -> None:
        options = dict.fromkeys(given, settings.features)
        require_given_store(settings, "features", tmp_path, options, variables)

    for served in (False, True):
        if served:
            # This records the catalog in the directory, not the one in ZooKeeper.
            serve(tmp_path)
        with pytest.raises(ConfigurationError, match="use --features") as caught:
            require()
        assert caught.value.field == "features"
        require("features")
        require(KIRANA_FEATURES=REDIS)
    serve(tmp_path, **zookeeper)
    require()


def test_a_command_gets_no_note_about_stores_that_it_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(tmp_path, features="redis://:hunter2@127.0.0.1:6379/3", models="file:///elsewhere")
    uses = ("catalog", "models")
    settings = local_settings(tmp_path, {}, environment=NOTHING, uses=uses)
    assert settings.models == "file:///elsewhere"
    assert "features" not in capsys.readouterr().err
