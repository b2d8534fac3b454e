"""The kinds of work, one module each: all that the queue, the attempts and the lists need to know of a kind.

entry.py             what an entry has; the type checker holds that each has all of it
generate.py          make pictures: a device
reproduce.py         make a picture again and compare: a device
load_model.py        bring a model onto a device: a device
load_to_host.py      bring a model into the RAM tier: the front process
benchmark_device.py  measure a device: a device, alone
benchmark_model.py   measure a model on a device: a device, alone
scan_models.py       look for models: the front process
reset_device.py      bring a device back to a clean state: the front process
transfer_blob.py     copy or move a blob's bytes: the front process
validate_model.py    check a model's files: the front process
convert_model.py     write a model in another precision or layout: the front process
unreadable.py        what another version of the server stored: never runs
assets.py            the models that work needs, each with its role

The runners of front work are in `domains.processing.front`. `server.processing.job_kinds` describes each kind to the
contract, one entry a kind.
"""

from typing import get_args

from domains.processing.jobs.kinds.benchmark_device import BenchmarkWork
from domains.processing.jobs.kinds.benchmark_model import ModelBenchmarkWork
from domains.processing.jobs.kinds.convert_model import ConvertWork
from domains.processing.jobs.kinds.entry import DeviceKind, FrontKind
from domains.processing.jobs.kinds.generate import GenerateWork
from domains.processing.jobs.kinds.load_model import LoadWork
from domains.processing.jobs.kinds.load_to_host import HostLoadWork
from domains.processing.jobs.kinds.reproduce import ReproduceWork
from domains.processing.jobs.kinds.reset_device import ResetWork
from domains.processing.jobs.kinds.scan_models import ScanWork
from domains.processing.jobs.kinds.transfer_blob import TransferWork
from domains.processing.jobs.kinds.unreadable import UnreadableWork
from domains.processing.jobs.kinds.validate_model import ValidateWork
from domains.reasons import Domain

DeviceWork = GenerateWork | ReproduceWork | LoadWork | BenchmarkWork | ModelBenchmarkWork
"""Work that a device worker carries out."""
FrontWork = ScanWork | ResetWork | TransferWork | ValidateWork | HostLoadWork | ConvertWork
"""Work that the front process carries out by itself."""
Work = DeviceWork | FrontWork | UnreadableWork
"""Work that a job can have."""

DEVICE_KINDS: tuple[type[DeviceKind], ...] = (GenerateWork, ReproduceWork, LoadWork, BenchmarkWork, ModelBenchmarkWork)
FRONT_KINDS: tuple[type[FrontKind], ...] = (
    ScanWork,
    ResetWork,
    TransferWork,
    ValidateWork,
    HostLoadWork,
    ConvertWork,
)

_DOMAIN_OF: dict[str, Domain] = {kind.__struct_config__.tag: kind.domain for kind in get_args(Work)}


def kind_of(work: Work) -> str:
    """The name of the work's kind: `generate`, `load_model`, `scan_models`."""
    if isinstance(work, UnreadableWork):
        return work.kind
    tag = work.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def domain_of(kind: str) -> Domain:
    """The domain of this kind of work."""
    return _DOMAIN_OF.get(kind, Domain.PROCESSING)
