"""Where pictures go is settled, and refused, before anything is computed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli.console.failure import USAGE, CliError
from server.cli.generation.files import media_type_of, slug, targets


def test_the_ending_of_the_file_chooses_the_format():
    assert media_type_of(None, Path("a.png")) == "image/png"
    assert media_type_of(None, Path("a.JPG")) == "image/jpeg"
    assert media_type_of("webp", Path("a")) == "image/webp"
    assert media_type_of("jpeg", Path("a.jpg")) == "image/jpeg"
    assert media_type_of(None, None) == "image/png"


@pytest.mark.parametrize(("name", "out"), [(None, "a.gif"), ("png", "a.jpg")])
def test_a_format_that_cannot_be_meant_is_a_usage_error(name: str | None, out: str):
    with pytest.raises(CliError, match="--out") as refused:
        media_type_of(name, Path(out))
    assert refused.value.exit_code == USAGE


def test_several_pictures_are_numbered_so_that_they_sort(tmp_path: Path):
    paths = targets("", tmp_path / "apple.png", 12, "image/png", force=False)
    assert [paths[0].name, paths[-1].name] == ["apple-01.png", "apple-12.png"]
    assert paths == sorted(paths)


def test_a_name_with_dots_and_no_ending_keeps_them(tmp_path: Path):
    assert targets("", tmp_path / "apple", 1, "image/webp", force=False) == [tmp_path / "apple.webp"]


def test_a_file_that_exists_is_not_overwritten_without_force(tmp_path: Path):
    taken = tmp_path / "apple-2.png"
    taken.write_bytes(b"mine")
    with pytest.raises(CliError, match=r"apple-2\.png exists.*--force") as refused:
        targets("", tmp_path / "apple.png", 3, "image/png", force=False)
    assert refused.value.exit_code == USAGE
    assert taken in targets("", tmp_path / "apple.png", 3, "image/png", force=True)


def test_without_a_name_the_prompt_names_the_file_and_taken_names_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert targets("A red apple!", None, 1, "image/jpeg", force=False) == [Path("a-red-apple.jpg")]
    Path("a-red-apple.jpg").write_bytes(b"")
    assert targets("A red apple!", None, 1, "image/jpeg", force=False) == [Path("a-red-apple-take2.jpg")]


def test_folders_are_made_and_a_file_in_their_place_is_named(tmp_path: Path):
    targets("", tmp_path / "new" / "deep" / "a.png", 1, "image/png", force=False)
    assert (tmp_path / "new" / "deep").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CliError, match="cannot make the folder"):
        targets("", tmp_path / "file" / "a.png", 1, "image/png", force=False)


@given(st.text())
def test_any_prompt_gives_one_plain_file_name(prompt: str):
    name = slug(prompt)
    assert name
    assert Path(name).name == name
    assert not name.startswith((".", "-"))
    assert len(name) <= 60
