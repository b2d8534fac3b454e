"""The table of promises is whole, names only what exists, and the page for its readers is current."""

import pytest

from tools.promises.named_tests import ROOT, exists, needs_gpu, python_tests
from tools.promises.page import AREAS, PAGE, page
from tools.promises.table import Promise, State, promises

COUNTS = {
    "ALL": 10,
    "DEV": 18,
    "MEM": 17,
    "MOD": 22,
    "PRO": 15,
    "INF": 19,
    "POS": 17,
    "DEP": 6,
    "STA": 9,
    "ERR": 11,
    "PER": 7,
    "TST": 5,
}
"""How many requirements each area has."""
BUILT = (State.PROVEN, State.PARTLY)


@pytest.fixture(scope="module")
def rows() -> dict[str, Promise]:
    # The parser refuses a second table of one id, unknown fields and unknown statuses.
    return promises()


def test_every_id_is_there_once_and_in_order(rows: dict[str, Promise]) -> None:
    assert list(rows) == [f"{area}-{number:02}" for area, count in COUNTS.items() for number in range(1, count + 1)]
    assert set(AREAS) == set(COUNTS)


def test_every_row_has_one_line_and_either_proof_or_a_status(rows: dict[str, Promise]) -> None:
    for key, row in rows.items():
        proof = bool(row.tests or row.benches)
        assert proof != bool(row.status), key
        assert proof or not (row.missing or row.gpu_only), key
        assert row.tests or row.status or row.missing, f"{key}: benches alone prove a promise in part"
        assert row.promise.endswith("."), key
        for text in (row.promise, row.missing, row.note, row.gpu_only):
            assert text == " ".join(text.split()), key
        assert len({*row.tests}) == len(row.tests), key


def test_every_test_that_is_named_exists(rows: dict[str, Promise]) -> None:
    gone = {key: [test for test in row.tests if not exists(test)] for key, row in rows.items()}
    assert not {key: tests for key, tests in gone.items() if tests}


def test_every_bench_that_is_named_exists(rows: dict[str, Promise]) -> None:
    benches = {bench for row in rows.values() for bench in row.benches}
    assert not {bench for bench in benches if not (ROOT / "bench" / f"{bench}.py").is_file()}


def test_every_built_row_is_decided_without_a_gpu(rows: dict[str, Promise]) -> None:
    for key, row in rows.items():
        if row.state in BUILT and row.tests:
            assert all(map(needs_gpu, row.tests)) == bool(row.gpu_only), key


def test_the_page_is_current(rows: dict[str, Promise]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(rows), "run: python -m tools.promises"


def test_names_and_gpu_marks_are_read_from_the_source() -> None:
    source = "def test_a(): ...\n\n@pytest.mark.gpu\nasync def test_b(): ...\n\ndef helper(): ...\n"
    assert python_tests(source) == {"test_a": False, "test_b": True}
    assert python_tests(f"pytestmark = pytest.mark.gpu\n{source}") == {"test_a": True, "test_b": True}
    assert exists("tests/csharp/DeviceOps.Contract.Tests/GenerateTests.cs::GeneratesThePicture")
    assert not exists("tests/csharp/DeviceOps.Contract.Tests/GenerateTests.cs::AssertFollows")
    assert not exists("tests/nowhere.py::test_a")
