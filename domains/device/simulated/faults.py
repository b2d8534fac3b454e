"""The faults that a simulated device can be scripted to have.

`at_step` counts the denoising steps of a job from 1; 0 strikes while a model is loaded. `times` is how often a fault
strikes while the server runs, however often the worker is started again; 0: every time.
"""

from typing import Annotated

import msgspec

_Step = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_DenoisingStep = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Times = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Bytes = Annotated[int, msgspec.Meta(ge=1, le=2**50)]


class _Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """In a script, `kind` says which."""


class OutOfMemory(_Fault, frozen=True, kw_only=True, tag="out_of_memory"):
    """The device refuses memory: the job or the load ends with DEVICE_OUT_OF_MEMORY, and gives back what it held."""

    at_step: _Step = 1
    times: _Times = 1


class HungStep(_Fault, frozen=True, kw_only=True, tag="hung_step"):
    """A call into the driver does not come back until the worker is killed. Pings are answered meanwhile."""

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
    """Something comes out wrong and nobody is told: a step of a job, or a result that a health check compares.

    Each of these is one strike.
    """

    times: _Times = 0


class SlowLoad(_Fault, frozen=True, kw_only=True, tag="slow_load"):
    """Models come in slowly."""

    bytes_per_second: _Bytes


class Leak(_Fault, frozen=True, kw_only=True, tag="leak"):
    """Each job leaves memory behind that nobody owns, until the worker is started again."""

    bytes_per_job: _Bytes


Fault = OutOfMemory | HungStep | DriverError | Crash | NotFinite | WrongResult | SlowLoad | Leak
