"""The hashes of a file are those that other tools print, in however many pieces it is read."""

import hashlib
from pathlib import Path

import pytest

from domains.model import content_hash as module
from domains.model.content_hash import content_hash, tensor_hash, weights_hash
from domains.model.safetensors_header import Header, TensorEntry
from tests.domains.memory.blobs import sha, some_bytes

DATA = some_bytes(0x120000)


@pytest.mark.parametrize("piece", [4 << 20, 300_007, 0x100000, 0x10000])
@pytest.mark.parametrize("begin", [0, 1, 299_999, 0x100800])
def test_the_pieces_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, begin: int) -> None:
    (tmp_path / "f").write_bytes(DATA)
    monkeypatch.setattr(module, "_CHUNK", piece)
    sizes: list[int] = []
    with (tmp_path / "f").open("rb") as file:
        file.seek(17)
        found = content_hash(file, begin, read=sizes.append)
    assert found.sha256 == sha(DATA)
    assert found.data_sha256 == sha(DATA[begin:])
    assert found.short_hash == sha(DATA[0x100000:0x110000])[:8]
    assert sum(sizes) == len(DATA)


def test_without_a_header_there_is_no_hash_of_what_follows_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with (tmp_path / "f").open("rb") as file:
        found = content_hash(file)
    assert (found.sha256, found.data_sha256) == (sha(b"abc"), "")


def header(*tensors: TensorEntry) -> Header:
    return Header(tensors=tensors, metadata={}, data_offset=8)


A = TensorEntry(name="a", dtype="F16", shape=(2, 3), begin=0, end=12)
B = TensorEntry(name="b", dtype="F32", shape=(), begin=12, end=16)


def test_the_hash_of_tensors_has_the_documented_formula() -> None:
    text = b"a\0F16\x002,3\nb\0F32\0\n" + sha(b"data").encode()
    assert tensor_hash(header(A, B), sha(b"data")) == hashlib.sha256(text).hexdigest()


def test_the_hash_of_weights_is_that_of_the_only_file_or_over_all() -> None:
    assert weights_hash([]) == ""
    assert weights_hash(["one"]) == "one"
    assert weights_hash([""]) == ""
    assert weights_hash(["one", ""]) == ""
    assert weights_hash(["one", "two"]) == sha(b"one\ntwo")
