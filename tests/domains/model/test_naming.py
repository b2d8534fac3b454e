"""Names and ids of models: from folders and caches, free, and within their limits."""

from pathlib import Path

import pytest

from domains.model.naming import display_name, free_id_of, id_violations


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/roots/dreamy", "dreamy"),
        ("/cache/models--owner--dreamy/snapshots/0a1b", "dreamy"),
        ("/cache/models--dreamy/snapshots/0a1b", "dreamy"),
        ("/cache/models--owner--dreamy/other/0a1b", "0a1b"),
        ("/cache/owner--dreamy/snapshots/0a1b", "0a1b"),
    ],
)
def test_a_model_in_a_download_cache_has_its_own_name(folder: str, name: str) -> None:
    assert display_name(Path(folder)) == name


@pytest.mark.parametrize(
    ("name", "taken", "model_id"),
    [
        ("Dreamy V3!", set[str](), "dreamy-v3"),
        ("...", set[str](), "model"),
        ("", set[str](), "model"),
        ("a", {"a"}, "a-2"),
        ("a", {"a", "a-2"}, "a-3"),
        ("x" * 101, set[str](), "x" * 100),
        ("x" * 99 + "-y", set[str](), "x" * 99),
    ],
)
def test_an_id_is_plain_and_free(name: str, taken: set[str], model_id: str) -> None:
    assert free_id_of(name, taken) == model_id


@pytest.mark.parametrize(
    ("model_id", "wrong"),
    [("", False), ("a", False), ("a" * 63, False), ("a-b_c.9", False), ("a" * 64, True), ("A", True), ("a b", True)],
)
def test_an_id_of_a_caller_has_up_to_63_plain_characters(model_id: str, wrong: bool) -> None:
    found = id_violations(model_id, "new_model_id")
    assert [one.field for one in found] == (["new_model_id"] if wrong else [])
