"""Hashes that were computed once count for files in the same state, and for nothing else."""

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from domains.model.model import FileStamp
from domains.model.notes import states_of, with_hashes
from tests.domains.inference.on_device.requests import embedded_model

FILES = (
    FileStamp(path="a.safetensors", real="/m/a", state="1"),
    FileStamp(path="b.safetensors", real="/m/b", state="2", sha256="b" * 64),
    FileStamp(path="c.json", real="/m/c", state=""),
)
MODEL = replace(embedded_model(), files=FILES, sha256="")
KNOWN = replace(FILES[0], sha256="a" * 64)


@dataclass
class Case:
    hashed: tuple[FileStamp, ...]
    taken: bool


@pytest.mark.parametrize(
    "case",
    [
        Case((KNOWN,), True),
        Case((), False),
        Case((replace(KNOWN, state="9"),), False),
        Case((replace(KNOWN, path="other"),), False),
        Case((replace(KNOWN, sha256=""),), False),
        Case((replace(FILES[2], sha256="c" * 64),), False),
        Case((replace(FILES[1], sha256="0" * 64),), False),
    ],
)
def test_a_file_without_a_hash_gets_the_one_of_its_state(case: Case) -> None:
    found = with_hashes(MODEL, case.hashed)
    if case.taken:
        assert [one.sha256[:1] for one in found.files] == ["a", "b", ""]
        assert found.sha256
        assert with_hashes(replace(MODEL, sha256="known"), case.hashed).sha256 == "known"
    else:
        assert found is MODEL


def test_states_are_those_of_files_with_a_hash() -> None:
    assert states_of(FILES) == (("b.safetensors", "2"),)
