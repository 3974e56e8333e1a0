"""The Serve configuration file that `kirana up --config` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kirana.cli.serve_config import ServeConfig, read_serve_config
from kirana.errors import ConfigurationError
from kirana.serving.settings import Settings, read_settings

SHIPPED = Path(__file__).parents[3] / "serve_config.yaml"
IMPORT = "kirana.graphs.serving:build"
BARE: dict[str, Any] = {"applications": [{"import_path": IMPORT}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def written(file: Path, content: Any) -> Path:
    """Write `content` as YAML, and return the file."""
    file.write_text(yaml.safe_dump(content))
    return file


def test_without_a_file_the_defaults_apply() -> None:
    assert read_serve_config(None) == ServeConfig({}, {}, {})


def test_http_options_settings_and_deployment_options_are_read(file: Path) -> None:
    content = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": 9000},
        "applications": [
            {
                "name": "kirana",
                "import_path": IMPORT,
                "args": {"placement": "models=spread", "replicas": 2},
                "deployments": [
                    {"name": "Ingress", "num_replicas": 2},
                    {"name": "Models", "autoscaling_config": {"max_replicas": 4}},
                    {"name": "Flows"},
                ],
            }
        ],
    }
    assert read_serve_config(written(file, content)) == ServeConfig(
        {"host": "0.0.0.0", "port": 9000},
        {"placement": "models=spread", "replicas": 2},
        {
            "Ingress": {"num_replicas": 2},
            "Models": {"autoscaling_config": {"max_replicas": 4}},
            "Flows": {},
        },
    )


def test_missing_sections_get_the_defaults(file: Path) -> None:
    assert read_serve_config(written(file, BARE)) == ServeConfig()
    empty = {"import_path": IMPORT, "args": {}, "deployments": []}
    content = {"http_options": {}, "applications": [empty]}
    assert read_serve_config(written(file, content)) == ServeConfig()


def test_only_the_first_application_is_read(file: Path) -> None:
    applications = [
        {"name": name, "route_prefix": f"/{name}", "import_path": IMPORT, "args": {"replicas": n}}
        for n, name in enumerate("ab", 1)
    ]
    content = {"applications": applications}
    assert read_serve_config(written(file, content)).arguments == {"replicas": 1}


def test_the_shipped_file_is_a_valid_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_serve_config(SHIPPED)
    urls = dict.fromkeys(("catalog", "features", "interactions", "models"), "x:///y")
    settings = read_settings({**urls, **config.arguments}, {})
    assert set(config.arguments) <= set(Settings.model_fields)
    assert settings.direct_range
    assert config.http["port"] == 8000
    assert config.deployments


BROKEN = {
    "an empty file": b"",
    "text": b"hello",
    "a list": b"- 1\n- 2\n",
    "invalid YAML": b"applications: [",
    "tabs": b"applications:\n\t- name: kirana\n",
    "a Python object": b"!!python/object/apply:os.getcwd []",
    "not UTF-8": b"applications: [{name: caf\xe9}]",
    "a control character": b"applications: [{name: \x07}]",
    "no applications": b"http_options: {}",
    "applications are null": b"applications:",
    "applications are empty": b"applications: []",
    "applications are a number": b"applications: 5",
    "applications are text": b"applications: kirana",
    "an application is text": b"applications: [kirana]",
    "an application is null": b"applications: [null]",
    "args are text": b"applications: [{args: placement}]",
    "args are a number": b"applications: [{args: 5}]",
    "args are a list": b"applications: [{args: [placement, spread]}]",
    "args are two-letter texts": b"applications: [{args: [ab, cd]}]",
    "deployments are a number": b"applications: [{deployments: 5}]",
    "deployments are a mapping": b"applications: [{deployments: {Ingress: {num_replicas: 2}}}]",
    "a deployment is text": b"applications: [{deployments: [Ingress]}]",
    "a deployment has no name": b"applications: [{deployments: [{num_replicas: 2}]}]",
    "the name is a list": b"applications: [{deployments: [{name: [a]}]}]",
    "http options are text": b"http_options: port\napplications: [{}]",
    "http options are a list": b"http_options: [8000]\napplications: [{}]",
}


INGRESS = "applications.0.deployments.0"
MISTAKES: dict[str, dict[str, Any]] = {
    "http_options.port": {"http_options": {"port": "abc"}},
    "proxy_location": {"proxy_location": "Everywhere"},
    f"{INGRESS}.autoscaling_config": {"autoscaling_config": 5},
    f"{INGRESS}.max_ongoing_requests": {"max_ongoing_requests": 0},
}


@pytest.mark.parametrize("field", MISTAKES)
def test_a_mistake_is_reported_with_its_path(file: Path, field: str) -> None:
    mistake = MISTAKES[field]
    content: dict[str, Any] = {"applications": [{"import_path": IMPORT}]}
    if field.startswith(INGRESS):
        content["applications"][0]["deployments"] = [{"name": "Ingress", **mistake}]
    else:
        content |= mistake
    with pytest.raises(ConfigurationError) as caught:
        read_serve_config(written(file, content))
    assert f"not a Serve configuration: {field}" in caught.value.message


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_an_invalid_configuration_is_reported_in_one_message(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a Serve configuration") as caught:
        read_serve_config(file)
    assert caught.value.message.startswith(f"{file} is")


def test_an_unreadable_file_is_reported_in_one_message(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_serve_config(file)
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_serve_config(file.parent)
