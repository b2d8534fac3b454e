"""Every solver by the id of `domains.inference.samplers`, and how it lays its steps."""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum

import msgspec

from domains.inference.solvers.consistency import lcm, tcd
from domains.inference.solvers.ddim import ddim, ddpm
from domains.inference.solvers.deis import deis
from domains.inference.solvers.dpm import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde
from domains.inference.solvers.euler import euler, euler_ancestral
from domains.inference.solvers.line import Line
from domains.inference.solvers.lms import lms
from domains.inference.solvers.pndm import pndm
from domains.inference.solvers.res import res_multistep
from domains.inference.solvers.second_order import dpm2, dpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde, heun
from domains.inference.solvers.spacing import Grid
from domains.inference.solvers.unipc import unipc
from domains.inference.solvers.walk import Walk


class Last(Enum):
    """The level that a walk ends at."""

    CLEAN = "clean"
    """No noise."""
    CONFIGURED = "configured"
    """No noise, or that of the first trained level if the model's `final_sigmas_type` says so."""
    TRAINED = "trained"
    """That of the first trained level."""
    ALPHA_ONE = "alpha_one"
    """No noise, or that of the first trained level if the model's `set_alpha_to_one` is false."""
    ALPHA_FIRST = "alpha_first"
    """That of the first trained level, or no noise if the model's `set_alpha_to_one` is true."""


class Solver(msgspec.Struct, frozen=True, kw_only=True):
    """One solver and its grid."""

    lines: Callable[[Walk], Iterable[Line]]
    grid: Grid
    last: Last
    whole_karras: bool = False
    """Whether the denoiser is told whole timesteps with the schedule `karras`."""


def _points(lines: Callable[[Walk], Iterable[Line]], last: Last = Last.CLEAN, *, whole_karras: bool = False) -> Solver:
    return Solver(lines=lines, grid=Grid.POINTS, last=last, whole_karras=whole_karras)


def _intervals(lines: Callable[[Walk], Iterable[Line]], last: Last = Last.CONFIGURED) -> Solver:
    return Solver(lines=lines, grid=Grid.INTERVALS, last=last, whole_karras=True)


SOLVERS: Mapping[str, Solver] = {
    "euler": _points(euler, Last.CONFIGURED),
    "euler_a": _points(euler_ancestral),
    "heun": _points(heun),
    "dpm2": _points(dpm2, whole_karras=True),
    "dpm2_a": _points(dpm2_ancestral, whole_karras=True),
    "dpmpp_2s_a": _points(dpmpp_2s_ancestral),
    "dpmpp_2m": _intervals(dpmpp_2m),
    "dpmpp_2m_sde": _intervals(dpmpp_2m_sde),
    "dpmpp_sde": _points(dpmpp_sde),
    "dpmpp_3m_sde": _intervals(dpmpp_3m_sde),
    "ddim": Solver(lines=ddim, grid=Grid.TRAINED, last=Last.ALPHA_ONE),
    "ddpm": Solver(lines=ddpm, grid=Grid.CHAIN, last=Last.CLEAN),
    "pndm": Solver(lines=pndm, grid=Grid.TRAINED, last=Last.ALPHA_FIRST),
    "lms": _points(lms),
    "deis": _intervals(deis, Last.TRAINED),
    "unipc": _intervals(unipc),
    "res_multistep": _points(res_multistep),
    "lcm": Solver(lines=lcm, grid=Grid.DISTILLED, last=Last.CLEAN),
    "tcd": Solver(lines=tcd, grid=Grid.DISTILLED, last=Last.TRAINED),
}
"""By id."""
