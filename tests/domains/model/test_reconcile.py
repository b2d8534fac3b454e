"""How a caller's cache of model files and the server disagree."""

from collections.abc import Sequence

import msgspec
import pytest

from domains.errors import InvalidRequest
from domains.memory.blobs.blob import Blob, BlobState
from domains.model.content_hash import weights_hash
from domains.model.loaded import LoadedModel
from domains.model.model import Component, FileStamp, Model, ModelState
from domains.model.reconcile import MAX_ENTRIES, CacheEntry, Comparison, Mismatch, MismatchKind, check_entries
from tests.domains.model.known import loaded_as

WHOLE, ONE, TWO, VAE, TENSORS = (letter * 64 for letter in "abcdef"[:5])


def component(name: str, *files: str) -> Component:
    return Component(id=name, files=files, size_bytes=1, parameter_count=1, precision="float16")


def stamp(path: str, sha256: str, tensors: str = "") -> FileStamp:
    return FileStamp(path=path, real=f"/m/{path}", sha256=sha256, tensor_sha256=tensors)


MODEL = Model(
    id="m",
    display_name="m",
    family="sd1",
    folder="/m",
    components=(component("unet", "unet/2", "unet/1"), component("vae", "vae/1"), component("tokenizer", "t")),
    size_bytes=1,
    sha256=WHOLE,
    state=ModelState.AVAILABLE,
    files=(stamp("unet/1", ONE, "1"), stamp("unet/2", TWO, "2"), stamp("vae/1", VAE, TENSORS), stamp("t", "")),
)
SINGLE = msgspec.structs.replace(MODEL, id="single", components=(), files=(stamp("s", ONE),))


def blob(name: str = "b", **facts: object) -> Blob:
    plain = Blob(id=name, sha256=ONE, size_bytes=1, media_type="", create_time_s=0.0, generation=3)
    return msgspec.structs.replace(plain, **facts)


def compared(*entries: CacheEntry, blobs: Sequence[Blob] = (), loaded: Sequence[LoadedModel] = ()) -> list[Mismatch]:
    return Comparison(entries, {"m": MODEL, "single": SINGLE}.get, blobs, loaded).mismatches()


def kinds(found: Sequence[Mismatch]) -> list[MismatchKind]:
    return [each.kind for each in found]


def test_what_is_the_same_is_no_mismatch() -> None:
    of_unet = weights_hash(["1", "2"])
    entries = [
        CacheEntry(model_id="m"),
        CacheEntry(model_id="m", sha256=WHOLE.upper()),
        CacheEntry(model_id="m", component_id="unet", sha256=of_unet),
        CacheEntry(model_id="m", component_id="vae", sha256=TENSORS),
        CacheEntry(model_id="m", component_id="vae", sha256=VAE),
        CacheEntry(model_id="m", component_id="tokenizer", sha256=ONE),
        CacheEntry(model_id="single", sha256=WHOLE),
        CacheEntry(model_id="single", sha256=ONE),
        CacheEntry(model_id="m", blob_id="b", generation=3, sha256=ONE.upper()),
    ]
    there = [loaded_as(MODEL), loaded_as(msgspec.structs.replace(SINGLE, sha256=WHOLE))]
    assert compared(*entries, blobs=[blob()], loaded=there) == []


@pytest.mark.parametrize(
    ("entry", "kind", "word"),
    [
        (CacheEntry(model_id="x" * 200), MismatchKind.UNKNOWN_MODEL, "register it again"),
        (CacheEntry(model_id="m", component_id="hat"), MismatchKind.UNKNOWN_COMPONENT, "it has unet, vae, tokenizer"),
        (CacheEntry(model_id="single", component_id="hat"), MismatchKind.UNKNOWN_COMPONENT, "it has none"),
        (CacheEntry(model_id="m", sha256=ONE), MismatchKind.CHECKSUM, "other bytes than the cache"),
        (CacheEntry(model_id="m", component_id="unet", sha256=ONE), MismatchKind.CHECKSUM, "other bytes"),
        (CacheEntry(model_id="m", blob_id="c"), MismatchKind.UNKNOWN_BLOB, "does not know blob 'c'"),
        (CacheEntry(model_id="m", blob_id="lost"), MismatchKind.UNKNOWN_BLOB, "has lost"),
        (CacheEntry(model_id="m", blob_id="b", generation=2), MismatchKind.STALE_GENERATION, "is generation 3 here"),
        (CacheEntry(model_id="m", blob_id="b", sha256=TWO), MismatchKind.CHECKSUM, "as a new generation"),
        (CacheEntry(model_id="m", blob_id="r", evictable=True), MismatchKind.EVICTABLE_IN_USE, "has 2 readers"),
    ],
)
def test_each_disagreement_has_its_kind_and_says_what_to_do(entry: CacheEntry, kind: MismatchKind, word: str) -> None:
    there = [blob(), blob("lost", state=BlobState.LOST), blob("r", reader_count=2)]
    mine, *others = compared(entry, blobs=there, loaded=[loaded_as(MODEL), loaded_as(SINGLE)])
    assert (mine.kind, mine.entry) == (kind, entry)
    assert word in mine.message
    assert len(mine.message) < 300
    assert kinds(others) == [MismatchKind.SOURCE_EVICTED] * (entry.blob_id != "r")


def test_a_checksum_tells_both_hashes_and_where_the_model_is_loaded() -> None:
    (mine,) = compared(CacheEntry(model_id="m", sha256=ONE), loaded=[loaded_as(MODEL), loaded_as(SINGLE)])
    assert (mine.caller_value, mine.server_value, mine.loaded_ids) == (ONE, WHOLE, ("m@gpu",))
    (of_blob,) = compared(CacheEntry(model_id="m", blob_id="b", sha256=TWO), blobs=[blob()], loaded=[loaded_as(MODEL)])
    assert (of_blob.caller_value, of_blob.server_value, of_blob.loaded_ids) == (TWO, ONE, ("m@gpu",))
    (of_age,) = compared(CacheEntry(model_id="m", blob_id="b", generation=4), blobs=[blob()])
    assert (of_age.caller_value, of_age.server_value) == ("4", "3")


def test_a_loaded_model_with_older_weights_is_stale() -> None:
    old = loaded_as(MODEL, model_sha256=TWO)
    (mine,) = compared(CacheEntry(model_id="m", sha256=WHOLE), loaded=[old, loaded_as(SINGLE, model_sha256=TWO)])
    assert (mine.kind, mine.loaded_ids) == (MismatchKind.STALE_GENERATION, ("m@gpu",))
    assert (mine.caller_value, mine.server_value) == (WHOLE, TWO)


def test_an_unhashed_blob_or_one_being_written_is_no_mismatch_and_a_generation_hides_a_hash() -> None:
    assert compared(CacheEntry(model_id="m", blob_id="b", sha256=TWO), blobs=[blob(sha256="")]) == []
    assert compared(CacheEntry(model_id="m", blob_id="b"), blobs=[blob(state=BlobState.WRITING)]) == []
    both = compared(CacheEntry(model_id="m", blob_id="b", generation=1, sha256=TWO), blobs=[blob()])
    assert kinds(both) == [MismatchKind.STALE_GENERATION]
    assert compared(CacheEntry(model_id="m", blob_id="b", evictable=True), blobs=[blob()]) == []


def test_a_source_that_is_read_and_not_in_the_cache_is_told_last() -> None:
    read = [blob("z", reader_count=1), blob("y", reader_count=1), blob("x")]
    comparison = Comparison(
        [CacheEntry(model_id="q"), CacheEntry(model_id="m", blob_id="z")], {"m": MODEL}.get, read, []
    )
    assert comparison.in_use() == ["y", "z"]
    found = comparison.mismatches()
    assert [(each.kind, each.entry.blob_id) for each in found] == [
        (MismatchKind.UNKNOWN_MODEL, ""),
        (MismatchKind.SOURCE_EVICTED, "y"),
    ]


def test_entries_that_cannot_be_compared_are_refused_with_their_places() -> None:
    check_entries([CacheEntry(model_id="m", blob_id=str(number)) for number in range(MAX_ENTRIES)])
    check_entries([CacheEntry(model_id="m"), CacheEntry(model_id="m", component_id="c", sha256=ONE)])
    wrong = [CacheEntry(model_id="m"), CacheEntry(model_id="m"), CacheEntry(model_id="n", sha256="12")]
    with pytest.raises(InvalidRequest) as caught:
        check_entries(wrong)
    assert [each.field for each in caught.value.violations] == ["entries[1]", "entries[2].sha256"]
    with pytest.raises(InvalidRequest, match="4001 entries") as many:
        check_entries([CacheEntry(model_id="m", blob_id=str(number)) for number in range(MAX_ENTRIES + 1)])
    assert [each.field for each in many.value.violations] == ["entries"]
