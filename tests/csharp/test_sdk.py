"""The C# suite is skipped only where there is no SDK, and fails where one must be there."""

from pathlib import Path

import pytest

from tests.csharp.sdk import REQUIRED, sdk_environment


def test_without_an_sdk_the_suite_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"no \.NET SDK"):
        sdk_environment(kit=tmp_path / "install", here={"PATH": str(tmp_path)})


def test_without_a_required_sdk_the_suite_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no \.NET SDK"):
        sdk_environment(kit=tmp_path / "install", here={"PATH": str(tmp_path), REQUIRED: "required"})


def test_an_sdk_on_the_path_is_taken(tmp_path: Path) -> None:
    program = tmp_path / "dotnet"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert sdk_environment(kit=tmp_path / "install", here={"PATH": str(tmp_path)})["PATH"] == str(tmp_path)
