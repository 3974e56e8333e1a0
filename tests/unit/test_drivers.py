"""The error for a store whose driver is not installed. It names the package to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kirana.drivers import driver_of
from kirana.errors import ConfigurationError

OPEN = """
import sys
sys.modules["{package}"] = None
from kirana.interactions.open import open_interaction_store
from kirana.stores import open_feature_store
from kirana.errors import ConfigurationError
try:
    {call}
except ConfigurationError as error:
    print(error.field, error.message)
"""


@pytest.mark.parametrize(
    ("package", "setting", "call"),
    [
        ("lmdb", "features", 'open_feature_store("lmdb:///tmp/nowhere")'),
        ("lmdb", "interactions", 'open_interaction_store("lmdb:///tmp/nowhere")'),
        ("redis", "features", 'open_feature_store("redis://127.0.0.1:1")'),
        ("hiredis", "features", 'open_feature_store("redis://127.0.0.1:1")'),
        ("redis", "features", 'open_feature_store("redis+cluster://127.0.0.1:1")'),
    ],
)
def test_the_error_names_the_setting_and_the_package(package: str, setting: str, call: str) -> None:
    command = [sys.executable, "-c", OPEN.format(package=package, call=call)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.stderr == ""
    assert completed.stdout.startswith(f"{setting} {setting}: ")
    assert f"'{package}'" in completed.stdout
    assert "pip install 'kirana[serve]'" in completed.stdout


def test_only_the_listed_packages_count_as_drivers() -> None:
    with pytest.raises(ModuleNotFoundError), driver_of("redis", "redis", setting="features"):
        import nothing_of_this_name  # noqa: F401
    with pytest.raises(ConfigurationError), driver_of("x", "nothing_else", setting="features"):
        import nothing_else  # noqa: F401
