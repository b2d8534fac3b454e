"""ReconcileModelCache names every disagreement that is planted, and none where there is none."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.model.v1 import model_cache_pb2, model_pb2, model_service_pb2, model_work_pb2
from domains.model.catalogue import EMBEDDED
from tests.server import asking
from tests.server.harness import RunningServer, running_server

VAE = "vae/diffusion_pytorch_model.safetensors"
Entry = model_cache_pb2.ModelCacheEntry


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(EMBEDDED / "emoji-sd", root / "real")
    (root / "weights.bin").write_bytes(bytes(32 << 20))
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    flags = ("--device", "cpu", "--model-root", str(root), "--model-poll-s", "0", "--blob-root", str(root))
    with running_server(*flags) as running:
        scan(running)
        file = blob_pb2.MappedFile(path=str(root / "weights.bin"))
        register = memory_service_pb2.RegisterBlobRequest(blob_id="w", file=file, generation=3, verify=True)
        running.memory.RegisterBlob(register)
        yield running


def scan(server: RunningServer) -> None:
    asking.journal_of(server.model.ScanModels(model_service_pb2.ScanModelsRequest()))


def reconciled(server: RunningServer, *entries: Any, **more: Any) -> model_service_pb2.ReconcileModelCacheResponse:
    request = model_service_pb2.ReconcileModelCacheRequest(entries=entries, **more)
    return server.model.ReconcileModelCache(request, timeout=asking.CALL_S)


def told(answer: model_service_pb2.ReconcileModelCacheResponse) -> list[str]:
    names = model_cache_pb2.ModelCacheMismatchKind.Name
    return [names(one.kind).removeprefix("MODEL_CACHE_MISMATCH_KIND_") for one in answer.mismatches]


def component_sha256(server: RunningServer, component_id: str) -> str:
    model = server.model.GetModel(model_service_pb2.GetModelRequest(model_id="real")).model
    return next(part.sha256 for part in model.components if part.id == component_id)


def blob_sha256(server: RunningServer) -> str:
    return server.memory.GetBlob(memory_service_pb2.GetBlobRequest(blob_id="w")).blob.sha256


def test_a_cache_that_agrees_has_no_mismatch(server: RunningServer) -> None:
    entries = (
        Entry(model_id="real", component_id="vae", sha256=component_sha256(server, "vae")),
        Entry(model_id="real", blob_id="w", generation=3, sha256=blob_sha256(server), evictable=True),
    )
    answer = reconciled(server, *entries, cache_generation=7)
    assert (told(answer), answer.consistent_ratio, answer.cache_generation) == ([], 1.0, 7)
    assert not reconciled(server).HasField("consistent_ratio")


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (Entry(model_id="nobody"), "UNKNOWN_MODEL"),
        (Entry(model_id="real", component_id="hat"), "UNKNOWN_COMPONENT"),
        (Entry(model_id="real", blob_id="gone"), "UNKNOWN_BLOB"),
        (Entry(model_id="real", blob_id="w", generation=2), "STALE_GENERATION"),
        (Entry(model_id="real", blob_id="w", generation=4), "STALE_GENERATION"),
        (Entry(model_id="real", blob_id="w", generation=3, sha256="0" * 64), "CHECKSUM"),
        (Entry(model_id="real", component_id="unet", sha256="0" * 64), "CHECKSUM"),
        (Entry(model_id="real", sha256="0" * 64), "CHECKSUM"),
    ],
)
def test_each_planted_disagreement_is_named_alone(server: RunningServer, entry: Any, kind: str) -> None:
    good = Entry(model_id="emoji-sd")
    answer = reconciled(server, good, entry)
    assert (told(answer), answer.consistent_ratio) == ([kind], 0.5)
    (one,) = answer.mismatches
    assert (one.model_id, one.component_id, one.blob_id) == (entry.model_id, entry.component_id, entry.blob_id)
    assert one.message
    if kind in ("STALE_GENERATION", "CHECKSUM"):
        assert one.caller_value in (entry.sha256, str(entry.generation))
        assert one.server_value not in ("", one.caller_value)


def test_a_source_that_is_being_read_must_stay(server: RunningServer) -> None:
    call = server.memory.ReadBlob(memory_service_pb2.ReadBlobRequest(blob_id="w"), timeout=asking.CALL_S)
    next(call)
    try:
        evictable = reconciled(server, Entry(model_id="real", blob_id="w", evictable=True))
        assert (told(evictable), list(evictable.blob_ids_in_use)) == (["EVICTABLE_IN_USE"], ["w"])
        evicted = reconciled(server)
        assert told(evicted) == ["SOURCE_EVICTED"]
        assert evicted.mismatches[0].blob_id == "w"
    finally:
        call.cancel()


def test_a_mapped_file_that_is_gone_is_an_unknown_blob(server: RunningServer, root: Path) -> None:
    (root / "passing.bin").write_bytes(b"abc")
    file = blob_pb2.MappedFile(path=str(root / "passing.bin"))
    server.memory.RegisterBlob(memory_service_pb2.RegisterBlobRequest(blob_id="passing", file=file))
    entry = Entry(model_id="real", blob_id="passing")
    assert told(reconciled(server, entry)) == []
    os.unlink(root / "passing.bin")
    assert told(reconciled(server, entry)) == ["UNKNOWN_BLOB"]


def test_a_loaded_model_with_other_bytes_is_named_and_repaired(server: RunningServer, root: Path) -> None:
    shutil.copytree(root / "real", root / "turned")
    scan(server)
    load = model_service_pb2.LoadModelRequest(model_load=model_work_pb2.ModelLoad(model_id="turned"))
    asking.journal_of(server.model.LoadModel(load))
    data = bytearray((root / "turned" / VAE).read_bytes())
    data[-1] ^= 1
    (root / "turned" / VAE).unlink()
    (root / "turned" / VAE).write_bytes(data)
    scan(server)
    answer = reconciled(server, Entry(model_id="turned"))
    (one,) = answer.mismatches
    assert (told(answer), list(one.loaded_model_ids), one.action_taken) == (["STALE_GENERATION"], ["turned@cpu"], "")
    repaired = reconciled(server, Entry(model_id="turned"), repair=True)
    assert repaired.mismatches[0].action_taken == "unloaded turned@cpu"
    assert told(reconciled(server, Entry(model_id="turned"))) == []


def test_models_that_queued_jobs_need_are_to_be_fetched(server: RunningServer) -> None:
    with asking.occupied(server):
        waiting = asking.submit(server)
        assert list(reconciled(server, Entry(model_id="real")).prefetch_model_ids) == ["emoji-sd"]
        assert list(reconciled(server, Entry(model_id="emoji-sd")).prefetch_model_ids) == []
        asking.cancel(server, waiting)


def test_malformed_entries_are_refused(server: RunningServer) -> None:
    twice = asking.refused(lambda: reconciled(server, Entry(model_id="a"), Entry(model_id="a")))
    assert (twice.reason, twice.fields) == ("INVALID_FIELD", ["entries[1]"])
    many = asking.refused(lambda: reconciled(server, *(Entry(model_id=str(number)) for number in range(4001))))
    assert many.fields == ["entries"]
    short = asking.refused(lambda: reconciled(server, Entry(model_id="a", sha256="12")))
    assert short.fields == ["entries[0].sha256"]


def test_a_model_loads_from_the_blobs_that_a_caller_mapped(server: RunningServer, root: Path) -> None:
    files: list[model_service_pb2.ModelBlobFile] = []
    for at, path in enumerate(sorted(path for path in (root / "real").rglob("*") if path.is_file())):
        mapped = memory_service_pb2.RegisterBlobRequest(
            blob_id=f"m{at}", file=blob_pb2.MappedFile(path=str(path)), generation=2
        )
        server.memory.RegisterBlob(mapped)
        name = path.relative_to(root / "real").as_posix()
        files.append(model_service_pb2.ModelBlobFile(path=name, blob_id=f"m{at}"))
    source = model_service_pb2.ModelBlobSource(files=files)
    made = server.model.RegisterModel(
        model_service_pb2.RegisterModelRequest(model_id="of-blobs", blob_source=source)
    ).model
    assert (made.state, made.source_path) == (model_pb2.MODEL_STATE_AVAILABLE, "")
    load = model_work_pb2.ModelLoad(model_id="of-blobs")
    loaded = asking.journal_of(server.model.LoadModel(model_service_pb2.LoadModelRequest(model_load=load)))[
        -1
    ].loaded_model
    weights = {file.blob_id for file in files if file.path.endswith(".safetensors")}
    sources = [source for part in loaded.components for source in part.sources]
    assert {(one.blob_id, one.generation) for one in sources} == {(name, 2) for name in weights}
    assert {name: reader_count(server, name) for name in weights} == dict.fromkeys(weights, 1)
    held = [Entry(model_id="of-blobs", blob_id=name, generation=2) for name in sorted(weights)]
    assert told(reconciled(server, *held)) == []
    # The cache lets go of a source that the server still reads.
    evicted = reconciled(server, *held[1:])
    assert [(one.blob_id, told(evicted)) for one in evicted.mismatches] == [(held[0].blob_id, ["SOURCE_EVICTED"])]
    gone = server.model.UnloadModel(model_service_pb2.UnloadModelRequest(loaded_model_id=loaded.id))
    assert set(gone.released_blob_ids) == weights
    assert told(reconciled(server)) == []
    forgotten = server.model.ForgetModel(model_service_pb2.ForgetModelRequest(model_id="of-blobs"))
    assert set(forgotten.released_blob_ids) == {file.blob_id for file in files}


def reader_count(server: RunningServer, blob_id: str) -> int:
    return server.memory.GetBlob(memory_service_pb2.GetBlobRequest(blob_id=blob_id)).blob.reader_count
