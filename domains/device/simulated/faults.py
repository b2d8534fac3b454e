"""Faults that a script can give to a simulated device.

`at_step` counts the denoising steps of a job from 1; 0 strikes while a model is loaded. `times` limits the strikes of a
fault while the server runs, across restarts of the worker; 0: unlimited.
"""

from typing import Annotated, Literal

import msgspec

_Step = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_DenoisingStep = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Times = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Bytes = Annotated[int, msgspec.Meta(ge=1, le=2**50)]


class _Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """In a script, `kind` names the fault."""


class OutOfMemory(_Fault, frozen=True, kw_only=True, tag="out_of_memory"):
    """An allocation fails: the job uses a permitted fallback, or ends with DEVICE_OUT_OF_MEMORY and frees its memory."""

    at_step: _Step = 1
    """Counts if `stage` is `denoising`."""
    stage: Literal["conditioning", "encoding_input", "denoising", "decoding"] = "denoising"
    times: _Times = 1


class HungStep(_Fault, frozen=True, kw_only=True, tag="hung_step"):
    """A driver call does not return until the worker is killed. Pings are answered meanwhile."""

    at_step: _Step = 1
    times: _Times = 1


class DriverError(_Fault, frozen=True, kw_only=True, tag="driver_error"):
    """The driver fails: the job or the load ends with DRIVER_ERROR."""

    at_step: _Step = 1
    times: _Times = 1


class Crash(_Fault, frozen=True, kw_only=True, tag="crash"):
    """The worker process dies at once, as by a fault inside the driver."""

    at_step: _Step = 1
    times: _Times = 1


class NotFinite(_Fault, frozen=True, kw_only=True, tag="not_finite"):
    """A step gives NaN: the job ends with NUMERIC_FAILURE."""

    at_step: _DenoisingStep = 1
    times: _Times = 1


class WrongResult(_Fault, frozen=True, kw_only=True, tag="wrong_result"):
    """A result is silently wrong: a step of a job, or a result that a health check compares.

    Each of these is one strike.
    """

    times: _Times = 0


class SlowLoad(_Fault, frozen=True, kw_only=True, tag="slow_load"):
    """Models load slowly."""

    bytes_per_second: _Bytes


class Leak(_Fault, frozen=True, kw_only=True, tag="leak"):
    """Each job leaks memory until the worker is restarted."""

    bytes_per_job: _Bytes


Fault = OutOfMemory | HungStep | DriverError | Crash | NotFinite | WrongResult | SlowLoad | Leak
