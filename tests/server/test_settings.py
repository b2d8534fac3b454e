"""Settings: flags, variables and a TOML file say the same things, in that order of precedence."""

import inspect
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.cli.service.serve import serve
from server.settings import ConfigError, Settings
from tests.server.harness import refused_start


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVICEOPS_CONFIG", raising=False)


def toml(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    file = folder / "deviceops.toml"
    file.write_text(text)
    monkeypatch.setenv("DEVICEOPS_CONFIG", str(file))
    return file


def test_every_setting_has_a_flag_and_every_flag_a_setting() -> None:
    flags = set(inspect.signature(serve).parameters) - {"end_with_stdin", "stdio"}
    assert flags == set(Settings.model_fields)


def test_a_flag_goes_before_a_variable_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml(tmp_path, monkeypatch, 'queue_capacity = 1\njobs_per_device = 1\nport = 1\ndevices = ["cpu"]')
    monkeypatch.setenv("DEVICEOPS_QUEUE_CAPACITY", "2")
    monkeypatch.setenv("DEVICEOPS_JOBS_PER_DEVICE", "2")
    settings = Settings(queue_capacity=3)
    assert (settings.queue_capacity, settings.jobs_per_device, settings.port) == (3, 2, 1)
    assert settings.devices == ["cpu"]


@pytest.mark.parametrize("text", ["cpu,cuda:0", " cpu , cuda:0,", '["cpu", "cuda:0"]'])
def test_a_list_in_the_environment_has_commas_or_is_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DEVICEOPS_DEVICES", text)
    assert Settings().devices == ["cpu", "cuda:0"]


def test_folders_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_BLOB_ROOTS", str(tmp_path))
    assert Settings().blob_roots == [tmp_path.resolve()]


def test_a_broken_list_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_DEVICES", '["cpu"')
    with pytest.raises(ValidationError, match="devices"):
        Settings()


def test_a_broken_file_and_one_that_is_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = toml(tmp_path, monkeypatch, "port = ")
    with pytest.raises(ConfigError, match=r"deviceops\.toml, which is no TOML"):
        Settings()
    file.unlink()
    with pytest.raises(ConfigError, match=r"deviceops\.toml, which cannot be read: No such file"):
        Settings()


def test_an_unknown_name_in_the_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(tmp_path, monkeypatch, "prot = 1")
    with pytest.raises(ValidationError, match="prot"):
        Settings()


def test_the_command_ends_with_2_and_one_clear_line(tmp_path: Path) -> None:
    refusal = refused_start(environment={"DEVICEOPS_CONFIG": str(tmp_path / "none.toml")})
    assert refusal.status == 2
    assert "none.toml" in refusal.stderr
    assert "Traceback" not in refusal.stderr


REACHABLE = ["0.0.0.0", "192.0.2.1", "::", "[::]", "example.org", ""]
LOOPBACK = ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"]


@pytest.mark.parametrize("host", REACHABLE)
def test_a_host_that_others_can_reach_is_refused_with_the_remedy(host: str) -> None:
    with pytest.raises(ValidationError, match="insecure_listen = true"):
        Settings(host=host)
    assert Settings(host=host, insecure_listen=True).host == host


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_loopback_host_needs_no_leave(host: str) -> None:
    assert Settings(host=host).host == host


def test_the_command_refuses_a_reachable_host_with_2(tmp_path: Path) -> None:
    refusal = refused_start("--host", "0.0.0.0", "--port", "0", "--state", str(tmp_path))
    assert refusal.status == 2
    assert "0.0.0.0 can be reached from other machines" in refusal.stderr
    assert "--insecure-listen" in refusal.stderr
