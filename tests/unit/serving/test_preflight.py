"""Checks before a start, with real folders, catalogs and sockets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import lmdb
import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.cli.locations import local_settings
from kirana.errors import ConfigurationError
from kirana.lmdb.environment import FORMAT
from kirana.serving.checks import catalog_checks
from kirana.serving.environment import free_ports
from kirana.serving.preflight import (
    bind,
    bind_first,
    check_direct_ports,
    check_placement,
    check_port,
    check_revision,
    check_space,
    check_stores,
)
from kirana.serving.settings import PREFIX, Settings
from kirana.stores import open_feature_store
from tests.store_calls import read_values, write_rows
from tests.support import ByOrder, publish, write_shop

LOCALHOST = "127.0.0.1"
OTHER_HOST = "192.0.2.1"
"""An address of a network that is reserved for documentation."""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    return folder


def settings_of(folder: Path, **options: object) -> Settings:
    return local_settings(folder, options)


class TestPlacement:
    @pytest.mark.parametrize("placement", ["fused", "spread", "models=spread,flows=spread"])
    def test_lmdb_is_accepted_in_any_placement_on_one_machine(
        self, folder: Path, placement: str
    ) -> None:
        settings = settings_of(folder, placement=placement)
        check_placement(settings, {"ingress": 4, "features": 4, "flows": 4})

    @pytest.mark.parametrize(
        ("placement", "replicas"),
        [
            ("fused", {}),
            ("fused", {"ingress": 1}),
            # This placement has no deployment of features.
            ("fused", {"ingress": 1, "features": 8}),
            ("models=spread", {"models": 8}),
            ("features=spread", {"ingress": 8}),
            ("spread", {"ingress": 8, "flows": 8, "inferflow": 8, "features": 1}),
        ],
    )
    def test_memory_is_accepted_if_one_replica_uses_it(
        self, folder: Path, placement: str, replicas: dict[str, int]
    ) -> None:
        settings = settings_of(folder, placement=placement, features="memory://")
        check_placement(settings, replicas)

    @pytest.mark.parametrize(
        ("placement", "replicas", "reason"),
        [
            ("fused", {"ingress": 2}, "2 replicas (ingress)"),
            ("flows=spread", {}, "2 replicas (ingress, flows)"),
            ("flows=spread", {"flows": 3}, "4 replicas (ingress, flows)"),
            ("inferflow=spread,flows=spread", {}, "3 replicas (ingress, inferflow, flows)"),
            ("features=spread", {"features": 2}, "2 replicas (features)"),
            ("spread", {"features": 4}, "4 replicas (features)"),
        ],
    )
    def test_memory_is_refused_if_several_replicas_would_use_it(
        self, folder: Path, placement: str, replicas: dict[str, int], reason: str
    ) -> None:
        settings = settings_of(folder, placement=placement, features="memory://")
        with pytest.raises(ConfigurationError) as caught:
            check_placement(settings, replicas)
        assert caught.value.field == "features"
        assert caught.value.message.startswith("features: memory:// is the memory of one process")
        assert reason in caught.value.message

    @pytest.mark.parametrize("nodes", [2, 10])
    def test_a_folder_is_refused_as_a_store_for_several_machines(
        self, folder: Path, nodes: int
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"this cluster has {nodes}") as caught:
            check_placement(settings_of(folder), nodes=nodes)
        assert caught.value.field == "features"

    def test_every_store_is_checked(self, folder: Path) -> None:
        settings = settings_of(folder, features="memory://")
        with pytest.raises(ConfigurationError, match=r"^interactions: lmdb://") as caught:
            check_placement(settings, nodes=2)
        assert caught.value.field == "interactions"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 8 MB, and yield its folder."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode:
        pytest.skip(f"no file system can be mounted here: {completed.stderr}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "full").open("wb", 0) as file, suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass
    assert not shutil.disk_usage(folder).free


class TestSpace:
    def test_a_machine_with_enough_space_is_accepted(self, folder: Path) -> None:
        check_space(settings_of(folder))
        check_space(settings_of(folder, features="memory://"))

    def test_folders_need_not_exist_yet(self, folder: Path, tmp_path: Path) -> None:
        check_space(settings_of(folder, features=f"lmdb://{tmp_path}/a/b/c"))
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize("name", ["features", "interactions"])
    def test_a_store_without_enough_space_is_named(
        self, folder: Path, tiny: Path, name: str
    ) -> None:
        settings = settings_of(folder, **{name: f"lmdb://{tiny}/not/there/yet"})
        with pytest.raises(ConfigurationError) as caught:
            check_space(settings)
        assert caught.value.field == name
        message = caught.value.message
        assert message.startswith(
            f"{name}: there is not enough space for {tiny}/not/there/yet: 8 MB"
        )

    def test_a_catalog_without_enough_space_is_named(self, folder: Path, tiny: Path) -> None:
        settings = settings_of(folder, catalog=f"dir://{tiny}")
        with pytest.raises(ConfigurationError, match="not enough space") as caught:
            check_space(settings)
        assert caught.value.field == "catalog"

    def test_a_temporary_folder_without_enough_space_is_named(
        self, folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tiny))
        with pytest.raises(ConfigurationError, match=f"not enough space for {tiny}"):
            check_space(settings_of(folder))

    def test_the_lack_of_a_usable_temporary_folder_is_reported(
        self, folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Python itself raises an error if it finds no folder that it can write to."""
        fill(tiny)
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tiny)])
        with pytest.raises(ConfigurationError, match="temporary files"):
            check_space(settings_of(folder))


def write_format(folder: Path, stored_format: bytes) -> None:
    """Create an LMDB folder with the given format."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), max_dbs=4) as raw, raw.begin(write=True) as txn:
        txn.put(b"format", stored_format, db=raw.open_db(b"meta", txn))


class TestStores:
    async def test_stores_are_created_and_closed(self, folder: Path) -> None:
        await check_stores(settings_of(folder))
        for name in ("features", "interactions"):
            store_folder = folder / ".kirana/data" / name
            # LMDB opens a folder only once per process, so this fails unless it was closed.
            with lmdb.open(str(store_folder), max_dbs=4) as raw, raw.begin() as txn:
                assert txn.get(b"format", db=raw.open_db(b"meta", txn)) == FORMAT

    async def test_stored_rows_are_kept(self, folder: Path) -> None:
        settings = settings_of(folder)
        store = open_feature_store(settings.features)
        await write_rows(store, [b"a"], [b"1"], ByOrder(lambda value: (1, False)))
        await check_stores(settings)
        assert await read_values(store, [b"a"]) == [b"1"]
        await store.close()

    async def test_memory_needs_no_folder(self, folder: Path) -> None:
        await check_stores(settings_of(folder, features="memory://"))
        assert not (folder / ".kirana/data/features").exists()

    @pytest.mark.parametrize("name", ["features", "interactions"])
    async def test_a_folder_of_another_format_is_named(self, folder: Path, name: str) -> None:
        settings = settings_of(folder)
        store_folder = folder / ".kirana/data" / name
        write_format(store_folder, b"9")
        with pytest.raises(ConfigurationError, match="has the format '9'") as caught:
            await check_stores(settings)
        assert str(store_folder) in caught.value.message
        assert caught.value.field == name

    @pytest.mark.parametrize("name", ["features", "interactions"])
    async def test_a_file_is_refused_as_a_folder(
        self, folder: Path, tmp_path: Path, name: str
    ) -> None:
        file = tmp_path / "file"
        file.write_text("")
        with pytest.raises(ConfigurationError, match="can't open the LMDB folder") as caught:
            await check_stores(settings_of(folder, **{name: f"lmdb://{file}"}))
        assert str(file) in caught.value.message
        assert caught.value.field == name

    @pytest.mark.parametrize(
        ("name", "url"),
        [
            ("features", "redis://a"),
            ("features", "memory:///a"),
            ("features", "lmdb://a"),
            ("features", "lmdb:///tmp/a?map_bytes=many"),
            ("interactions", "redis://a"),
            ("interactions", "lmdb://"),
        ],
    )
    async def test_an_invalid_store_url_is_named(self, folder: Path, name: str, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            await check_stores(settings_of(folder, **{name: url}))
        assert caught.value.field == name


def copy_of(folder: Path, model: str) -> Path:
    """Return the path of the copy of a model file that the live revision uses."""
    catalog = DirectoryCatalog(folder, catalog_checks())
    digest = catalog.load(catalog.current()).models[model].sha256
    return folder / "models" / ".kirana" / str(digest)


class TestRevision:
    def test_the_live_revision_is_returned(self, folder: Path) -> None:
        assert check_revision(settings_of(folder)).number == 1
        with (folder / "shop.yaml").open("a") as file:
            file.write("---\nkind: entity\nname: brand\nkeys: [{name: brand_id}]\n")
        assert check_revision(settings_of(folder)).number == 1
        publish(folder)
        assert check_revision(settings_of(folder)).number == 2

    def test_a_catalog_that_was_never_published_is_refused(self, tmp_path: Path) -> None:
        folder = write_shop(tmp_path / "shop")
        with pytest.raises(ConfigurationError, match="publish one with 'kirana apply'") as caught:
            check_revision(settings_of(folder))
        assert caught.value.field == "catalog"
        assert not (folder / ".kirana").exists()

    def test_a_missing_catalog_is_refused(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="no revision yet"):
            check_revision(settings_of(folder, catalog=f"dir://{tmp_path}/nowhere"))

    @pytest.mark.parametrize("name", ["catalog", "models"])
    def test_a_url_with_a_wrong_scheme_is_named(self, folder: Path, name: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            check_revision(settings_of(folder, **{name: "s3://bucket/folder"}))
        assert caught.value.field == name

    def test_model_files_may_change_or_disappear(self, folder: Path) -> None:
        """The revision uses its own copies of the files."""
        (folder / "models/order/1/model.onnx").unlink()
        (folder / "models/click/1/model.onnx").write_bytes(b"not a model")
        assert check_revision(settings_of(folder)).number == 1

    def test_a_missing_copy_is_named(self, folder: Path) -> None:
        copy = copy_of(folder, "order_model")
        copy.unlink()
        with pytest.raises(
            ConfigurationError, match=r"the copy .* of model 'order_model' is missing"
        ) as caught:
            check_revision(settings_of(folder))
        assert str(copy) in caught.value.message

    def test_a_changed_copy_is_named(self, folder: Path) -> None:
        copy = copy_of(folder, "click_model")
        copy.chmod(0o644)
        copy.write_bytes(b"not a model")
        with pytest.raises(ConfigurationError, match=r"'click_model': its copy .* was changed"):
            check_revision(settings_of(folder))


@pytest.fixture
def used_port() -> Iterator[int]:
    """Yield a port that is in use."""
    with closing(bind(LOCALHOST, 0)) as listener:
        yield listener.getsockname()[1]


class TestPort:
    def test_a_checked_port_is_still_free(self) -> None:
        (port,) = free_ports(1)
        check_port(LOCALHOST, port)
        check_port(LOCALHOST, port)

    def test_a_port_in_use_is_named(self, used_port: int) -> None:
        with pytest.raises(ConfigurationError, match="Address already in use") as caught:
            check_port(LOCALHOST, used_port)
        assert caught.value.message.startswith(f"can't listen on {LOCALHOST}:{used_port} (")
        assert caught.value.field == "port"

    def test_a_port_that_was_just_closed_is_free(self) -> None:
        """The side that closes a connection first keeps it in TIME_WAIT."""
        with closing(bind(LOCALHOST, 0)) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection((LOCALHOST, port)) as client:
                accepted, _ = listener.accept()
                accepted.close()
                assert client.recv(1) == b""
        check_port(LOCALHOST, port)

    @pytest.mark.parametrize("host", [OTHER_HOST, "no.such.host.invalid", "256.0.0.1"])
    def test_a_host_that_is_not_this_machine_is_refused(self, host: str) -> None:
        with pytest.raises(ConfigurationError, match="can't listen on") as caught:
            check_port(host, 8000)
        assert host in caught.value.message

    @pytest.mark.parametrize("port", [-1, 65_536, 70_000, 1 << 70])
    def test_an_invalid_port_number_is_refused(self, port: int) -> None:
        with pytest.raises(ConfigurationError) as caught:
            check_port(LOCALHOST, port)
        assert caught.value.field == "port"

    @pytest.mark.machine
    def test_an_ipv6_address_can_be_bound(self) -> None:
        try:
            listener = bind("::1", 0)
        except OSError as error:
            pytest.skip(f"there is no IPv6 here: {error}")
        with closing(listener):
            port = listener.getsockname()[1]
            assert listener.family == socket.AF_INET6
            with pytest.raises(ConfigurationError, match="can't listen on"):
                check_port("::1", port)


class TestDirectPorts:
    def test_direct_ports_may_be_off(self, folder: Path, used_port: int) -> None:
        settings = settings_of(folder, direct_ports="off", direct_host=OTHER_HOST)
        check_direct_ports(settings)

    def test_one_free_port_in_the_range_is_enough_and_stays_free(
        self, folder: Path, used_port: int
    ) -> None:
        settings = settings_of(folder, direct_ports=f"{used_port}-{min(used_port + 50, 65_535)}")
        check_direct_ports(settings)
        check_direct_ports(settings)

    def test_a_range_without_a_free_port_is_named(self, folder: Path, used_port: int) -> None:
        settings = settings_of(folder, direct_ports=str(used_port), direct_host=LOCALHOST)
        with pytest.raises(
            ConfigurationError, match=f"no port from {used_port} to {used_port} can be used"
        ) as caught:
            check_direct_ports(settings)
        assert caught.value.field == "direct_ports"

    def test_a_host_that_is_not_this_machine_is_named(self, folder: Path) -> None:
        settings = settings_of(folder, direct_host=OTHER_HOST)
        with pytest.raises(ConfigurationError, match=f"can't listen on {OTHER_HOST}"):
            check_direct_ports(settings)

    def test_replicas_take_one_port_after_another(self) -> None:
        start = free_ports(1)[0]
        ports = range(start, min(start + 100, 65_536))
        with (
            closing(bind_first(LOCALHOST, ports)) as first_listener,
            closing(bind_first(LOCALHOST, ports)) as second_listener,
        ):
            first, second = first_listener.getsockname()[1], second_listener.getsockname()[1]
            assert first < second
            assert {first, second} <= set(ports)
            with socket.create_connection((LOCALHOST, first)):
                first_listener.accept()[0].close()

    def test_binding_fails_if_the_whole_range_is_in_use(self, used_port: int) -> None:
        with pytest.raises(ConfigurationError, match="give another range, or 'off'"):
            bind_first(LOCALHOST, range(used_port, used_port + 1))
