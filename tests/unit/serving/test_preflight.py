"""What is looked at before a start: real folders, catalogs and sockets, each with one message."""

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
from kirana.serving.checks import checks_of
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

HERE = "127.0.0.1"
ELSEWHERE = "192.0.2.1"
"""Of a network that is for examples only."""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_shop(tmp_path / "shop")
    publish(made)
    return made


def settings_of(folder: Path, **options: object) -> Settings:
    return local_settings(folder, options)


class TestPlacement:
    @pytest.mark.parametrize("placement", ["fused", "spread", "models=spread,flows=spread"])
    def test_lmdb_may_be_anywhere_on_one_machine(self, folder: Path, placement: str) -> None:
        settings = settings_of(folder, placement=placement)
        check_placement(settings, {"ingress": 4, "features": 4, "flows": 4})

    @pytest.mark.parametrize(
        ("placement", "replicas"),
        [
            ("fused", {}),
            ("fused", {"ingress": 1}),
            ("fused", {"ingress": 1, "features": 8}),  # no deployment of this placement
            ("models=spread", {"models": 8}),
            ("features=spread", {"ingress": 8}),
            ("spread", {"ingress": 8, "flows": 8, "inferflow": 8, "features": 1}),
        ],
    )
    def test_memory_is_fine_where_one_replica_has_it(
        self, folder: Path, placement: str, replicas: dict[str, int]
    ) -> None:
        settings = settings_of(folder, placement=placement, features="memory://")
        check_placement(settings, replicas)

    @pytest.mark.parametrize(
        ("placement", "replicas", "tells"),
        [
            ("fused", {"ingress": 2}, "2 replicas (ingress)"),
            ("flows=spread", {}, "2 replicas (ingress, flows)"),
            ("flows=spread", {"flows": 3}, "4 replicas (ingress, flows)"),
            ("inferflow=spread,flows=spread", {}, "3 replicas (ingress, inferflow, flows)"),
            ("features=spread", {"features": 2}, "2 replicas (features)"),
            ("spread", {"features": 4}, "4 replicas (features)"),
        ],
    )
    def test_memory_that_several_replicas_would_have_is_refused(
        self, folder: Path, placement: str, replicas: dict[str, int], tells: str
    ) -> None:
        settings = settings_of(folder, placement=placement, features="memory://")
        with pytest.raises(ConfigurationError) as caught:
            check_placement(settings, replicas)
        assert caught.value.field == "features"
        assert caught.value.message.startswith("features: memory:// is the memory of one process")
        assert tells in caught.value.message

    @pytest.mark.parametrize("nodes", [2, 10])
    def test_a_folder_is_no_store_for_several_machines(self, folder: Path, nodes: int) -> None:
        with pytest.raises(ConfigurationError, match=f"this cluster has {nodes}") as caught:
            check_placement(settings_of(folder), nodes=nodes)
        assert caught.value.field == "features"

    def test_each_store_is_looked_at(self, folder: Path) -> None:
        settings = settings_of(folder, features="memory://")
        with pytest.raises(ConfigurationError, match=r"^interactions: lmdb://") as caught:
            check_placement(settings, nodes=2)
        assert caught.value.field == "interactions"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    made = tmp_path / "tiny"
    made.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(made)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr}")
    yield made
    subprocess.run(["umount", str(made)], check=True)


def fill(folder: Path) -> None:
    with (folder / "full").open("wb", 0) as file, suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass
    assert not shutil.disk_usage(folder).free


class TestSpace:
    def test_a_machine_with_room_is_fine(self, folder: Path) -> None:
        check_space(settings_of(folder))
        check_space(settings_of(folder, features="memory://"))

    def test_folders_need_not_be_there_yet(self, folder: Path, tmp_path: Path) -> None:
        check_space(settings_of(folder, features=f"lmdb://{tmp_path}/a/b/c"))
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize("name", ["features", "interactions"])
    def test_a_store_without_room_is_named(self, folder: Path, tiny: Path, name: str) -> None:
        settings = settings_of(folder, **{name: f"lmdb://{tiny}/not/there/yet"})
        with pytest.raises(ConfigurationError) as caught:
            check_space(settings)
        assert caught.value.field == name
        message = caught.value.message
        assert message.startswith(f"{name}: there is no space left for {tiny}/not/there/yet: 8 MB")

    def test_a_catalog_without_room_is_named(self, folder: Path, tiny: Path) -> None:
        settings = settings_of(folder, catalog=f"dir://{tiny}")
        with pytest.raises(ConfigurationError, match="no space left") as caught:
            check_space(settings)
        assert caught.value.field == "catalog"

    def test_a_folder_for_temporary_files_without_room_is_named(
        self, folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tiny))
        with pytest.raises(ConfigurationError, match=f"no space left for {tiny}"):
            check_space(settings_of(folder))

    def test_a_machine_without_any_room_for_temporary_files_is_one_message(
        self, folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Python looks for a folder that it can write to, and there is none."""
        fill(tiny)
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tiny)])
        with pytest.raises(ConfigurationError, match="temporary files"):
            check_space(settings_of(folder))


def write_format(folder: Path, found: bytes) -> None:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), max_dbs=4) as raw, raw.begin(write=True) as txn:
        txn.put(b"format", found, db=raw.open_db(b"meta", txn))


class TestStores:
    async def test_stores_are_made_and_let_go_of(self, folder: Path) -> None:
        await check_stores(settings_of(folder))
        for name in ("features", "interactions"):
            made = folder / ".kirana/data" / name
            # in one process LMDB opens a folder once only
            with lmdb.open(str(made), max_dbs=4) as raw, raw.begin() as txn:
                assert txn.get(b"format", db=raw.open_db(b"meta", txn)) == FORMAT

    async def test_what_is_stored_stays(self, folder: Path) -> None:
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
        made = folder / ".kirana/data" / name
        write_format(made, b"9")
        with pytest.raises(ConfigurationError, match="is of format b'9'") as caught:
            await check_stores(settings)
        assert str(made) in caught.value.message
        assert caught.value.field == name

    @pytest.mark.parametrize("name", ["features", "interactions"])
    async def test_a_file_is_no_folder(self, folder: Path, tmp_path: Path, name: str) -> None:
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
    async def test_a_url_that_names_no_store_is_named(
        self, folder: Path, name: str, url: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            await check_stores(settings_of(folder, **{name: url}))
        assert caught.value.field == name


def copy_of(folder: Path, model: str) -> Path:
    """Return where the bytes are that the live revision pins for a model."""
    catalog = DirectoryCatalog(folder, checks_of())
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

    def test_a_catalog_that_is_not_there_is_refused(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="no revision yet"):
            check_revision(settings_of(folder, catalog=f"dir://{tmp_path}/nowhere"))

    @pytest.mark.parametrize("name", ["catalog", "models"])
    def test_a_url_of_another_kind_is_named(self, folder: Path, name: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            check_revision(settings_of(folder, **{name: "s3://bucket/folder"}))
        assert caught.value.field == name

    def test_the_files_of_models_may_change_or_go(self, folder: Path) -> None:
        """The revision has their bytes."""
        (folder / "models/order/1/model.onnx").unlink()
        (folder / "models/click/1/model.onnx").write_bytes(b"this is no model")
        assert check_revision(settings_of(folder)).number == 1

    def test_a_copy_that_is_gone_is_named(self, folder: Path) -> None:
        copy = copy_of(folder, "order_model")
        copy.unlink()
        with pytest.raises(
            ConfigurationError, match=r"'order_model': its copy .* is gone"
        ) as caught:
            check_revision(settings_of(folder))
        assert str(copy) in caught.value.message

    def test_a_copy_that_was_changed_is_named(self, folder: Path) -> None:
        copy = copy_of(folder, "click_model")
        copy.chmod(0o644)
        copy.write_bytes(b"this is no model")
        with pytest.raises(ConfigurationError, match=r"'click_model': its copy .* was changed"):
            check_revision(settings_of(folder))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with closing(bind(HERE, 0)) as listening:
        yield listening.getsockname()[1]


class TestPort:
    def test_a_free_port_is_free_afterwards(self) -> None:
        (port,) = free_ports(1)
        check_port(HERE, port)
        check_port(HERE, port)

    def test_a_taken_port_is_named(self, taken: int) -> None:
        with pytest.raises(ConfigurationError, match="Address already in use") as caught:
            check_port(HERE, taken)
        assert caught.value.message.startswith(f"{HERE}:{taken} can't be listened on")
        assert caught.value.field == "port"

    def test_a_port_that_was_in_use_a_moment_ago_is_free(self) -> None:
        """Who closes first leaves the connection in TIME_WAIT."""
        with closing(bind(HERE, 0)) as listening:
            port = listening.getsockname()[1]
            with socket.create_connection((HERE, port)) as client:
                accepted, _ = listening.accept()
                accepted.close()
                assert client.recv(1) == b""
        check_port(HERE, port)

    @pytest.mark.parametrize("host", [ELSEWHERE, "no.such.host.invalid", "256.0.0.1"])
    def test_a_host_that_is_not_this_machine_is_refused(self, host: str) -> None:
        with pytest.raises(ConfigurationError, match="can't be listened on") as caught:
            check_port(host, 8000)
        assert host in caught.value.message

    @pytest.mark.parametrize("port", [-1, 65_536, 70_000, 1 << 70])
    def test_a_number_that_is_no_port_is_refused(self, port: int) -> None:
        with pytest.raises(ConfigurationError) as caught:
            check_port(HERE, port)
        assert caught.value.field == "port"

    @pytest.mark.machine
    def test_ipv6_is_listened_on_too(self) -> None:
        try:
            listening = bind("::1", 0)
        except OSError as error:
            pytest.skip(f"there is no IPv6 here: {error}")
        with closing(listening):
            port = listening.getsockname()[1]
            assert listening.family == socket.AF_INET6
            with pytest.raises(ConfigurationError, match="can't be listened on"):
                check_port("::1", port)


class TestDirectPorts:
    def test_who_wants_none_is_fine(self, folder: Path, taken: int) -> None:
        settings = settings_of(folder, direct_ports="off", direct_host=ELSEWHERE)
        check_direct_ports(settings)

    def test_a_free_port_in_the_range_is_enough_and_stays_free(
        self, folder: Path, taken: int
    ) -> None:
        settings = settings_of(folder, direct_ports=f"{taken}-{min(taken + 50, 65_535)}")
        check_direct_ports(settings)
        check_direct_ports(settings)

    def test_a_range_that_is_taken_is_named(self, folder: Path, taken: int) -> None:
        settings = settings_of(folder, direct_ports=str(taken), direct_host=HERE)
        with pytest.raises(ConfigurationError, match=f"all of {taken} to {taken}") as caught:
            check_direct_ports(settings)
        assert caught.value.field == "direct_ports"

    def test_a_host_that_is_not_this_machine_is_named(self, folder: Path) -> None:
        settings = settings_of(folder, direct_host=ELSEWHERE)
        with pytest.raises(ConfigurationError, match=f"{ELSEWHERE} can't be listened on"):
            check_direct_ports(settings)

    def test_replicas_take_one_port_after_another(self) -> None:
        start = free_ports(1)[0]
        ports = range(start, min(start + 100, 65_536))
        with closing(bind_first(HERE, ports)) as one, closing(bind_first(HERE, ports)) as other:
            first, second = one.getsockname()[1], other.getsockname()[1]
            assert first < second
            assert {first, second} <= set(ports)
            with socket.create_connection((HERE, first)):
                one.accept()[0].close()

    def test_a_range_is_full_once_each_has_one(self, taken: int) -> None:
        with pytest.raises(ConfigurationError, match="give another range, or 'off'"):
            bind_first(HERE, range(taken, taken + 1))
