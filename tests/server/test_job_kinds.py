"""Each kind of work has its entry at the edge, and a job's spec says what was asked."""

from typing import get_args

from deviceops.model.v1 import loaded_model_pb2
from deviceops.processing.v1 import job_pb2
from domains.model.conversion import Conversion
from domains.model.model import ModelLayout
from domains.model.validation import Depth, Validation
from domains.processing.jobs.kinds import (
    ConvertWork,
    HostLoadWork,
    LoadWork,
    ScanWork,
    UnreadableWork,
    ValidateWork,
    Work,
    domain_of,
)
from domains.reasons import Domain
from server.model.conversion_messages import from_conversion
from server.model.load_messages import from_load
from server.model.validation_messages import from_validation
from server.processing.job_kinds import ARM_OF, KIND_OF, to_spec

ONE_TO_CALLERS = {"load_model", "load_to_host"}
"""Kinds that the contract has as one, with a field that tells them apart."""


def test_every_kind_has_a_number_of_its_own_an_arm_and_a_domain() -> None:
    kinds = {work.__struct_config__.tag for work in get_args(Work) if work is not UnreadableWork}
    assert set(KIND_OF) == kinds
    assert len({number for kind, number in KIND_OF.items() if kind not in ONE_TO_CALLERS}) == len(
        kinds - ONE_TO_CALLERS
    )
    assert {KIND_OF[kind] for kind in ONE_TO_CALLERS} == {job_pb2.JOB_KIND_MODEL_LOAD}
    assert all(arm in job_pb2.JobSpec.DESCRIPTOR.fields_by_name for arm in ARM_OF.values())
    assert all(domain_of(kind) is not Domain.PROCESSING for kind in kinds)


def test_the_spec_of_a_job_says_what_was_asked() -> None:
    load = to_spec(LoadWork(model_id="m", pin=True)).model_load
    assert (load.model_id, load.pinned, load.tier) == ("m", True, loaded_model_pb2.MODEL_TIER_UNSPECIFIED)
    to_host = HostLoadWork(model_id="m", pin=True, keep_alive_s=5)
    assert to_spec(to_host).model_load.tier == loaded_model_pb2.MODEL_TIER_HOST
    assert from_load(to_spec(to_host).model_load) == to_host
    asked = Validation(model_id="m", depth=Depth.VALUES, component_ids=("vae",), expected_sha256="0" * 64)
    assert from_validation(to_spec(ValidateWork(asked=asked)).model_validation) == asked
    conversion = Conversion(
        model_id="m",
        precision="bfloat16",
        layout=ModelLayout.DIFFUSERS,
        destination="/models/n",
        new_model_id="n",
        keep=("vae",),
    )
    assert from_conversion(to_spec(ConvertWork(asked=conversion)).model_conversion) == conversion
    assert list(to_spec(ScanWork(roots=("a", "b"))).model_scan.roots) == ["a", "b"]
    assert to_spec(ScanWork()).WhichOneof("work") == "model_scan"
