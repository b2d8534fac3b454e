"""A deleted job leaves no prompt and no picture behind: the tests search the bytes of every file of the state folder."""

import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.server import asking
from tests.server.harness import RunningServer, running_server

KEPT, DELETED, LABELLED = "zyx-kept-marker-5150", "zyx-deleted-marker-5151", "zyx-labelled-marker-5152"


def holders(folder: Path, wanted: bytes) -> list[str]:
    """Names of the files that contain these bytes."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return sorted(file.name for file in files if wanted in file.read_bytes())


def marked(server: RunningServer, marker: str, seed: int) -> tuple[str, bytes]:
    """A finished job whose prompts and label contain the marker, and bytes from the middle of its picture."""
    generation = asking.picture(seed=seed)
    generation.prompt = f"{marker} {'an owl, ' * 20}{marker}"
    generation.negative_prompt = marker
    options = job_event_pb2.JobOptions(labels=[label_pb2.Label(key="for", value=marker)])
    job_id = asking.submit(server, generation, options)
    result = asking.watch(server, job_id)[-1].generation_result
    picture = asking.blob(server, result.images[0].file.blob_id)
    return job_id, picture[-200:-100]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of temporary files of the server and its workers."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def own(temporary: Path) -> Iterator[RunningServer]:
    """A server whose state folder no other test writes to."""
    with running_server("--device", "cpu", environment={"TMPDIR": str(temporary)}) as server:
        yield server


def test_a_deleted_prompt_and_picture_are_nowhere_in_the_state_folder(own: RunningServer) -> None:
    kept, deleted, labelled = (marked(own, name, seed) for seed, name in enumerate((KEPT, DELETED, LABELLED)))
    for marker, (_, picture) in ((KEPT, kept), (DELETED, deleted), (LABELLED, labelled)):
        assert holders(own.state, marker.encode())
        assert holders(own.state, picture)
    asking.delete(own, deleted[0])
    assert holders(own.state, DELETED.encode()) == []
    assert holders(own.state, deleted[1]) == []
    wanted = [label_pb2.Label(key="for", value=LABELLED)]
    own.processing.DeleteByLabels(processing_service_pb2.DeleteByLabelsRequest(labels=wanted), timeout=asking.CALL_S)
    assert holders(own.state, LABELLED.encode()) == []
    assert holders(own.state, labelled[1]) == []
    assert holders(own.state, KEPT.encode())
    assert holders(own.state, kept[1])


def test_no_prompt_is_in_the_log_or_in_a_temporary_file(own: RunningServer, temporary: Path) -> None:
    marked(own, KEPT, 9)
    assert b"job started" in own.log.read_bytes()
    assert KEPT.encode() not in own.log.read_bytes()
    files = [file for file in temporary.rglob("*") if file.is_file()]
    assert [file for file in files if KEPT.encode() in file.read_bytes()] == []


def test_no_process_of_the_server_writes_a_core_dump(own: RunningServer) -> None:
    own.status()
    processes = [psutil.Process(own.process.pid), *psutil.Process(own.process.pid).children(recursive=True)]
    assert len(processes) > 1
    for process in processes:
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE)[0] <= 1
