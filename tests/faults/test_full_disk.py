"""The disk under the state folder fills up: refused or failed with STORAGE_FULL, never dead, and fine again afterwards."""

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from deviceops.common.v1 import error_pb2
from domains import storage
from domains.checkpoints import checkpoint
from domains.errors import ErrorReason, ResourceExhausted
from domains.memory.blobs.files import BlobFiles
from tests.server import asking
from tests.server.asking import ENDINGS, kind, kinds, picture
from tests.server.harness import RunningServer

SIZE_BYTES = 4 * 1024 * 1024
FILE_SYSTEMS = ("tmpfs", "ext4")


@pytest.fixture(params=["tmpfs"])
def small_disk(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    image = tmp_path_factory.mktemp("disk") / "image"
    with image.open("wb") as file:
        file.truncate(2 * SIZE_BYTES)
    commands = {
        "tmpfs": [["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(tmp_path)]],
        "ext4": [["mkfs.ext4", "-q", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(tmp_path)]],
    }
    for command in commands[request.param]:
        if not shutil.which(command[0]):
            pytest.skip(f"needs {command[0]}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{request.param} cannot be mounted here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@contextmanager
def full(disk: Path) -> Generator[None]:
    """Not one more byte fits."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (64 * 1024, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    yield
    filler.unlink()


@pytest.fixture
def server(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(small_disk / "state", ["--device", "cpu"], {"DEVICEOPS_DRAIN_S": "1"})
    yield running
    running.close()


def test_a_full_disk_refuses_new_work_fails_what_runs_and_kills_nothing(
    server: RunningServer, small_disk: Path
) -> None:
    kept = asking.watch(server, asking.submit(server))[-1].generation_result.images[0]
    job_id = asking.submit(server, picture(steps=30, seed=2, count=2))
    asking.wait_for_step(server, job_id)
    with full(small_disk):
        # The job cannot store its pictures: it fails for that reason, and everybody who watches hears it.
        seen = asking.watch(server, job_id)
        assert [name for name in kinds(seen) if name in ENDINGS] == ["failed"]
        failure = seen[-1].event.failed.failure
        assert failure.reason == error_pb2.ERROR_REASON_STORAGE_FULL
        assert failure.status_code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        refusals = [asking.refused(lambda: asking.submit(server)) for _ in range(3)]
        assert {(refusal.code, refusal.reason) for refusal in refusals} == {
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
        }
        assert asking.blob(server, kept.file.blob_id), "what is there can be read"
        assert server.status().workers[0].restart_count == 0
    assert kind(asking.watch(server, asking.submit(server, picture(seed=3)))[-1]) == "succeeded"
    assert server.process.poll() is None


@pytest.mark.parametrize("small_disk", FILE_SYSTEMS, indirect=True)
def test_a_picture_that_does_not_fit_leaves_nothing_and_fits_later(small_disk: Path) -> None:
    files = BlobFiles(small_disk / "blobs", lasting=storage.Durability.POWER)
    picture = os.urandom(100_000)
    with full(small_disk):
        with pytest.raises(ResourceExhausted) as refusal:
            files.write(picture)
        assert refusal.value.reason is ErrorReason.STORAGE_FULL
        assert not [one for one in files.folder.rglob("*") if one.is_file()]
    assert files.path(files.write(picture)).read_bytes() == picture


@pytest.mark.parametrize("small_disk", FILE_SYSTEMS, indirect=True)
def test_old_pages_of_the_log_are_no_room_for_new_work(small_disk: Path) -> None:
    database = storage.open_database(small_disk)
    database.execute("CREATE TABLE told (text)")
    checkpoint(database)
    storage.room_for_work(small_disk)
    with full(small_disk):
        database.execute("INSERT INTO told VALUES ('SQLite writes where the log began')")
        with pytest.raises(ResourceExhausted) as refusal:
            storage.room_for_work(small_disk)
        assert refusal.value.reason is ErrorReason.STORAGE_FULL
    database.close()
