"""Tables at every width: ids are whole, nothing is lost, curves keep their newest end."""

from __future__ import annotations

import pytest

from server.cli.console import sparkline as curves
from server.cli.console import tables
from server.cli.console.printing import quantity
from server.cli.console.sparkline import Curve, print_curves, sparkline

_HEADS = ("job", "state", "nothing", "about")
_ROWS = [
    ("job-0123456789abcdef", "running", "–", "a red apple on a very long table in the garden"),
    ("job-fedcba9876543210", "queued", "", "an owl"),
]


def _width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    from rich.console import Console

    def console() -> Console:
        return Console(highlight=False, width=columns)

    monkeypatch.setattr(tables, "console", console)
    monkeypatch.setattr(curves, "console", console)


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_ids_are_whole_and_nothing_is_lost_at_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    _width(monkeypatch, columns)
    tables.print_table(_HEADS, _ROWS, "")
    told = capsys.readouterr().out
    for row in _ROWS:
        assert row[0] in told
        assert all(word in told for cell in row[1:] for word in cell.split() if cell != "–")
    assert max(map(len, (line.rstrip() for line in told.splitlines()))) <= max(columns, len(_ROWS[0][0]))


def test_a_column_that_says_nothing_goes_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    whole = tables.natural_width(_HEADS, _ROWS)
    _width(monkeypatch, whole)
    tables.print_table(_HEADS, _ROWS, "")
    assert "nothing" in capsys.readouterr().out
    _width(monkeypatch, whole - 1)
    tables.print_table(_HEADS, _ROWS, "")
    told = capsys.readouterr().out.splitlines()
    assert "nothing" not in told[0]
    assert told[0].split() == ["job", "state", "about"]


def test_reasons_stand_below_the_table(capsys: pytest.CaptureFixture[str]):
    tables.print_reasons([("cpu", ""), ("gpu-1", "3 errors in a row")])
    assert capsys.readouterr().out == "\ngpu-1: 3 errors in a row\n"
    tables.print_reasons([("cpu", "")])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("count", [59, 60, 61, 119, 121, 599])
def test_a_curve_keeps_its_newest_end(count: int):
    drawn = sparkline([0.0] * (count - 1) + [9.0])
    assert drawn.endswith("█")
    assert drawn.count("█") == 1
    assert len(drawn) <= 60


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_curves_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    _width(monkeypatch, columns)
    print_curves([Curve("memory", [*([1.0] * 300), 2.0], ("1.0 GiB", "2.0 GiB", "2.0 GiB"))])
    told = capsys.readouterr().out
    assert "▁█" in told
    assert max(len(line.rstrip()) for line in told.splitlines()) <= columns


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (6.281e10, "{flop}/s", "62.8 GFLOP/s"),
        (999.0, "{flop}/s", "999 FLOP/s"),
        (3 << 30, "By/s", "3.0 GiB/s"),
        (3 << 20, "By", "3.0 MiB"),
        (3.44, "s", "3.4 s"),
        (7.58e-6, "s", "7.58 µs"),
        (71.0, "Cel", "71 °C"),
        (0.5, "1", "0.5"),
    ],
)
def test_measurements_have_the_units_of_people(value: float, unit: str, text: str):
    assert quantity(value, unit) == text
