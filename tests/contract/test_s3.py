"""Files of a real S3 server, as sources of a push."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from kirana.archive.folder import ArchiveFolder
from kirana.archive.tables import FileTable
from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import InvalidInput, Unavailable
from kirana.ingest.push import Push
from kirana.ingest.targets import StoreTarget
from kirana.serving.checks import catalog_checks
from kirana.stores import open_feature_store
from tests.e2e.environment import environment
from tests.s3_server import CREDENTIALS, S3Server
from tests.store_calls import read_values
from tests.support import publish, write_shop

BUCKET = "features"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with environment(CREDENTIALS), S3Server(tmp_path_factory.mktemp("s3")) as started:
        files = started.files()
        files.create_dir(BUCKET)
        folder = f"{BUCKET}/daily/product.stats/dt=2026-11-28"
        table = pa.table({"product_id": ["a", "b"], "clicks": [1, 2], "ctr": [0.5, 0.5]})
        pq.write_table(table, f"{folder}/part-0.parquet", filesystem=files)
        with files.open_output_stream(f"{folder}/part-1.csv") as stream:
            csv.write_csv(table.slice(0, 1).set_column(0, "product_id", [["c"]]), stream)
        files.open_output_stream(f"{folder}/_SUCCESS").close()
        yield started


def job(shop: Path, *urls: str) -> Push:
    catalog = DirectoryCatalog(shop, catalog_checks())
    return Push(urls, catalog.load(catalog.current()))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    return folder


async def test_a_folder_of_a_bucket_is_pushed(server: S3Server, shop: Path, tmp_path: Path) -> None:
    push = job(shop, server.url(f"{BUCKET}/daily"))
    await push.check(lambda rows: None)
    store = open_feature_store(f"lmdb://{tmp_path}/data")
    pushed = await push.write(StoreTarget(store), lambda rows: None)
    assert pushed["product.stats"].written == 3
    keys = [f"f:product.stats:{key}" for key in "abc"]
    assert None not in await read_values(store, keys)
    await store.close()


def test_files_of_an_archive_are_written_as_a_whole(server: S3Server) -> None:
    folder = ArchiveFolder(server.url(f"{BUCKET}/archive"))
    table = pa.table({"product_id": ["a", "b"]})
    file = FileTable("product.stats", 1, "2026-11-28", table)
    assert folder.write(file, "rows-0.parquet") > 0
    path = f"{BUCKET}/archive/product.stats/day=2026-11-28/rows-0.parquet"
    written = server.files().open_input_file(path).read()
    folder.write(file, "rows-0.parquet")
    assert server.files().open_input_file(path).read() == written
    assert pq.read_table(pa.BufferReader(written)).column("product_id").to_pylist() == ["a", "b"]


def test_a_bucket_that_does_not_take_files_is_reported(server: S3Server) -> None:
    file = FileTable("product.stats", 1, "2026-11-28", pa.table({"product_id": ["a"]}))
    with pytest.raises(Unavailable, match="nowhere"):
        ArchiveFolder(server.url("nowhere/archive")).write(file, "rows-0.parquet")


def test_what_is_not_there_is_named_without_credentials(server: S3Server, shop: Path) -> None:
    url = server.url(f"user:secret@{BUCKET}/nothing")
    with pytest.raises(InvalidInput, match=f"there is no file s3://user@{BUCKET}/nothing") as error:
        job(shop, url)
    assert "secret" not in error.value.message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "s3:// has no bucket"),
        ("s3://features?regin=a", "unknown option 'regin': did you mean 'region'"),
        ("s3://features?region=a&timeout=soon", "timeout must be a number of seconds"),
        ("s3://features?region=a&scheme=ftp", "s3://features"),
    ],
)
def test_a_wrong_url_is_refused(shop: Path, url: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        job(shop, url)


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_a_server_that_is_away_is_named(shop: Path, tmp_path: Path, fault: str) -> None:
    with environment(CREDENTIALS), S3Server(tmp_path) as server:
        url = f"{server.url(BUCKET)}&timeout=1"
        {"killed": server.kill, "paused": server.pause}[fault]()
        with pytest.raises(Unavailable, match=r"s3://features.* can't be read"):
            job(shop, url)
