"""Sizes, curves and flags, as people write and read them."""

import pytest

from server.cli.app import run
from server.cli.console.amounts import byte_count
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import figure, percent
from server.cli.console.sparkline import sparkline


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1000", 1000),
        ("12B", 12),
        ("512MiB", 512 << 20),
        ("4g", 4 << 30),
        ("1.5 TiB", 3 << 39),
        ("7Ki", 7168),
        (str(2**53 + 1), 2**53 + 1),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_sizes_are_read_in_powers_of_1024(text: str, count: int):
    assert byte_count(text, "--limit") == count


@pytest.mark.parametrize("text", ["", "-1", "4GB", "many", "1e9", "4 G i B", "0x10", "GiB"])
def test_a_size_that_is_none_or_means_two_things_is_refused(text: str):
    with pytest.raises(CliError, match="--limit") as refused:
        byte_count(text, "--limit")
    assert refused.value.exit_code == USAGE


def test_a_curve_keeps_its_peaks_and_its_gaps():
    assert sparkline([]) == sparkline([None]) == ""
    assert sparkline([0, None, 7, 3.5]) == "▁ █▅"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([0] * 99 + [9] + [0] * 20, columns=60).count("█") == 1


def test_what_was_not_measured_is_a_dash():
    assert (figure(None, "W"), figure(0, "W"), percent(None), percent(0.125)) == ("–", "0 W", "–", "12 %")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["memory", "--json", "budget", "host", "--limit", "1GiB"], "--json must come after"),
        (["blobs", "--address", "127.0.0.1:1", "rm", "x"], "--address must come after"),
        (["memory", "budget", "host"], "--limit"),
        (["memory", "budget", "host", "--limit", "4GB"], "4GB"),
        (["device", "limit", "cpu"], "--power"),
        (["device", "limit", "cpu", "--jobs", "few"], "a whole number"),
        (["device", "advise", "cpu", "--goal", "fame"], "--goal"),
        (["blobs", "put", "/no/such/file"], "/no/such/file"),
        (["devices", "--watch", "--interval", "0"], "--interval"),
        (["device"], "benchmark"),
    ],
)
def test_a_mistake_is_named_before_a_server_is_asked(command: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run(command) == USAGE
    told = capsys.readouterr()
    assert said in told.err + told.out
