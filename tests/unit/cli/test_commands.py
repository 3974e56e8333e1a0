"""The commands as a user runs them: their output, error output and exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kirana.cli import main
from tests.support import SHOP, write_shop
from tests.waiting import wait_for

DAY_MS = 86_400_000


class Kirana(Protocol):
    def __call__(self, *arguments: object) -> CompletedProcess[str]: ...


@pytest.fixture
def kirana(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kirana:
    """Return a function that runs a command in this process, which is faster than a new one."""

    def run(*arguments: object) -> CompletedProcess[str]:
        command = ["kirana", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as exit_error:
            code = int(exit_error.code or 0)
        return CompletedProcess(command, code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


def test_check_counts_the_objects_and_says_what_apply_would_publish(
    folder: Path, kirana: Kirana
) -> None:
    done = kirana("check", folder)
    assert done.returncode == 0
    assert "is valid: 4 entities, 6 feature groups, 2 event types" in done.stdout
    assert "would publish schema version 1 of product.stats" in done.stdout
    assert not (folder / "versions").exists()


def test_check_names_file_line_and_path_of_every_problem(folder: Path, kirana: Kirana) -> None:
    text = SHOP.replace("ttl: 7d", "tll: 7d").replace("repeats: latest", "repeats: newest")
    (folder / "shop.yaml").write_text(text)
    done = kirana("check", folder)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    line_number = text.splitlines().index("tll: 7d") + 1
    assert (
        f"error: {folder}/shop.yaml:{line_number}: tll: unknown key 'tll': did you mean 'ttl'?"
        in lines
    )
    assert any("repeats" in line and "newest" in line for line in lines)
    assert "Traceback" not in done.stderr


def test_check_without_models_reads_no_model_files(folder: Path, kirana: Kirana) -> None:
    (folder / "models" / "click" / "1" / "model.onnx").unlink()
    assert kirana("check", folder).returncode == 1
    assert kirana("check", folder, "--without-models").returncode == 0


def test_apply_publishes_once(folder: Path, kirana: Kirana) -> None:
    first, second = kirana("apply", folder), kirana("apply", folder)
    assert first.stdout == "revision 1 is published\n"
    assert "published schema version 1 of product.stats" in first.stderr
    assert second.stdout == "revision 1 is live already, nothing has changed\n"


def test_many_schema_versions_are_summarized_unless_verbose(folder: Path, kirana: Kirana) -> None:
    group = "kind: feature_group\nname: product.g{}\nfeatures: [{{name: a, dtype: int32}}]\n"
    (folder / "many.yaml").write_text("---\n".join(group.format(i) for i in range(20)))
    summary, listing = kirana("check", folder), kirana("check", folder, "-v")
    assert "would publish schema versions of" in summary.stdout
    assert "(-v lists them)" in summary.stdout
    assert "product.g7" not in summary.stdout
    assert "would publish schema version 1 of product.g7" in listing.stdout
    first = kirana("apply", folder)
    assert "published schema versions of" in first.stderr
    assert "product.g7" not in first.stderr


def test_push_reports_written_and_stale_rows(folder: Path, tmp_path: Path, kirana: Kirana) -> None:
    kirana("apply", folder)
    file = tmp_path / "user.profile.parquet"
    now = int(time.time() * 1000)
    rows = {"user_id": ["1", "2"], "age": [20, 30], "event_time": [now, now]}
    pq.write_table(pa.table(rows), file)
    assert "user.profile: 2 rows written\n" in kirana("push", folder, file).stdout
    rows = {"user_id": ["1", "2"], "age": [21, 31], "event_time": [now - 1, now + 1]}
    pq.write_table(pa.table(rows), file)
    assert "user.profile: 1 rows written, 1 stale\n" in kirana("push", folder, file).stdout


def test_push_reports_expired_rows(folder: Path, tmp_path: Path, kirana: Kirana) -> None:
    kirana("apply", folder)
    file = tmp_path / "user.profile.parquet"
    now = int(time.time() * 1000)
    times = [now, now - 31 * DAY_MS, now - 60 * DAY_MS]
    rows = {"user_id": ["1", "2", "3"], "age": [20, 30, 40], "event_time": times}
    pq.write_table(pa.table(rows), file)
    assert "user.profile: 1 rows written, 2 expired\n" in kirana("push", folder, file).stdout
    older = {**rows, "event_time": [now - 1, *times[1:]]}
    pq.write_table(pa.table(older), file)
    output = kirana("push", folder, file).stdout
    assert "user.profile: 0 rows written, 1 stale, 2 expired\n" in output


def test_push_of_times_in_seconds_says_what_to_send(
    folder: Path, tmp_path: Path, kirana: Kirana
) -> None:
    kirana("apply", folder)
    file = tmp_path / "user.profile.parquet"
    rows = {"user_id": ["1"], "age": [20], "event_time": [1_700_000_000]}
    pq.write_table(pa.table(rows), file)
    done = kirana("push", folder, file)
    assert done.returncode == 1
    assert "column 'event_time'" in done.stderr
    assert "send milliseconds, 1700000000000" in " ".join(done.stderr.split())


def test_push_of_a_wrong_value_names_it_and_a_corrected_push_succeeds(
    folder: Path, tmp_path: Path, kirana: Kirana
) -> None:
    kirana("apply", folder)
    file = tmp_path / "user.profile.parquet"
    pq.write_table(pa.table({"user_id": ["1", "2"], "age": [20, 300_000]}), file)
    done = kirana("push", folder, file)
    assert done.returncode == 1
    assert "user.profile.parquet, row 1, column 'age'" in done.stderr
    assert "300000" in done.stderr
    pq.write_table(pa.table({"user_id": ["1"], "age": [20]}), file)
    assert "1 rows written" in kirana("push", folder, file).stdout


def test_push_writes_the_rows_that_are_right_on_demand(
    folder: Path, tmp_path: Path, kirana: Kirana
) -> None:
    kirana("apply", folder)
    file = tmp_path / "user.profile.csv"
    file.write_text("user_id,age\n1,20\n2,old\n3,x\n4,\n")
    refused = kirana("push", folder, file)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[1:] == [
        f"{file}, row 2, column 'age': 'x' is not a number (int16)",
        "2 rows are wrong",
    ]
    (file_of_rejected,) = (folder / ".kirana" / "push").glob("*.rejected.jsonl")
    listed = file_of_rejected.read_text().splitlines()
    assert [json.loads(line)["row"] for line in listed] == [1, 2]
    options = ("--allow-rejected", "--rejected", tmp_path / "rejected.jsonl")
    done = kirana("push", folder, file, *options)
    assert done.returncode == 0
    assert "user.profile: 2 rows written, 2 rejected\n" in done.stdout
    assert f"2 rows were rejected: {tmp_path}/rejected.jsonl has the reasons" in done.stderr
    assert (tmp_path / "rejected.jsonl").read_text().splitlines() == listed


def test_push_maps_columns_and_reads_partitions(
    folder: Path, tmp_path: Path, kirana: Kirana
) -> None:
    kirana("apply", folder)
    part = tmp_path / "user.profile" / "dt=2026-11-28" / "part-0.parquet"
    part.parent.mkdir(parents=True)
    pq.write_table(pa.table({"uid": ["1"], "age": [20], "note": ["x"]}), part)
    options = ("--rename", "uid=user_id", "--ignore-extra", "--event-time", "dt")
    done = kirana("push", folder, part.parent.parent, *options)
    assert "user.profile: 1 rows written\n" in done.stdout
    for wrong in ("uid", "=user_id", "uid="):
        usage = kirana("push", folder, part, "--rename", wrong)
        assert usage.returncode == 2
        assert "is not OLD=NEW" in usage.stderr


def test_a_source_says_what_push_loads(folder: Path, tmp_path: Path, kirana: Kirana) -> None:
    with (folder / "shop.yaml").open("a") as file:
        file.write(
            "---\n{kind: source, name: daily, group: user.profile, files: [exports], "
            "rename: {uid: user_id}, ignore_extra: true}\n"
        )
    kirana("apply", folder)
    (folder / "exports").mkdir()
    table = pa.table({"uid": ["1"], "age": [20], "note": ["x"]})
    pq.write_table(table, folder / "exports" / "today.parquet")
    pq.write_table(table, tmp_path / "yesterday.parquet")
    for paths in ([], [tmp_path / "yesterday.parquet"]):
        done = kirana("push", folder, *paths, "--source", "daily")
        assert "user.profile: 1 rows written\n" in done.stdout
    unknown = kirana("push", folder, "--source", "dailly")
    assert unknown.returncode == 1
    assert "unknown source 'dailly': did you mean 'daily'?" in unknown.stderr
    for options in ((), ("--source", "daily", "--ignore-extra")):
        assert kirana("push", folder, *options).returncode == 2


def test_a_killed_push_goes_on_when_it_is_run_again(
    folder: Path, tmp_path: Path, kirana: Kirana
) -> None:
    kirana("apply", folder)
    count = 2_000_000
    file = tmp_path / "user.profile.parquet"
    ids, ages = np.arange(count), np.zeros(count, np.int16)
    pq.write_table(pa.table({"user_id": ids, "age": ages}), file)
    journals = folder / ".kirana" / "push"
    words = [sys.executable, "-m", "kirana", "push", str(folder), str(file)]
    with subprocess.Popen(words) as process:
        wait_for(lambda: [*journals.glob("*.json")] and b'"done":{"0"' in read(journals))
        process.kill()
    again = kirana("push", folder, file)
    (rows_done,) = re.findall(r"going on after (\d+) rows", again.stderr)
    assert 0 < int(rows_done) < count
    assert f"user.profile: {count} rows written\n" in again.stdout
    assert f"{count - int(rows_done)} rows in " in again.stdout
    assert list(journals.iterdir()) == []


def read(folder: Path) -> bytes:
    """Return the content of all JSON files in a folder."""
    return b"".join(path.read_bytes() for path in folder.glob("*.json"))


def test_push_before_apply_says_what_to_do_first(
    folder: Path, tmp_path: Path, kirana: Kirana
) -> None:
    done = kirana("push", folder, tmp_path)
    assert done.returncode == 1
    assert "has no revision yet: publish one with 'kirana apply'" in " ".join(done.stderr.split())


def test_wrong_usage_exits_with_2(kirana: Kirana) -> None:
    assert kirana("apply").returncode == 2
    assert kirana("nonsense").returncode == 2


def test_a_missing_directory_is_reported_in_one_line(tmp_path: Path, kirana: Kirana) -> None:
    done = kirana("apply", tmp_path / "nothing")
    assert done.returncode == 1
    assert done.stderr == f"error: the directory does not exist: {tmp_path}/nothing\n"


@pytest.mark.parametrize("command", ["check", "apply", "push", "up", "down", "env", "demo"])
def test_the_help_of_a_command_shows_its_usage(command: str, kirana: Kirana) -> None:
    done = kirana(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
