"""Each kind of work has its entry at the edge, and a job's spec says what was asked."""

from typing import get_args

from deviceops.processing.v1 import job_pb2
from domains.model.validation import Depth, Validation
from domains.processing.jobs.kinds import LoadWork, ScanWork, UnreadableWork, ValidateWork, Work, domain_of
from domains.reasons import Domain
from server.model.validation_messages import from_validation
from server.processing.job_kinds import ARM_OF, KIND_OF, to_spec


def test_every_kind_has_a_number_of_its_own_an_arm_and_a_domain() -> None:
    kinds = {work.__struct_config__.tag for work in get_args(Work) if work is not UnreadableWork}
    assert set(KIND_OF) == kinds
    assert len(set(KIND_OF.values())) == len(kinds)
    assert all(arm in job_pb2.JobSpec.DESCRIPTOR.fields_by_name for arm in ARM_OF.values())
    assert all(domain_of(kind) is not Domain.PROCESSING for kind in kinds)


def test_the_spec_of_a_job_says_what_was_asked() -> None:
    load = to_spec(LoadWork(model_id="m", pin=True)).model_load
    assert (load.model_id, load.pinned) == ("m", True)
    asked = Validation(model_id="m", depth=Depth.VALUES, component_ids=("vae",), expected_sha256="0" * 64)
    assert from_validation(to_spec(ValidateWork(asked=asked)).model_validation) == asked
    assert list(to_spec(ScanWork(roots=("a", "b"))).model_scan.roots) == ["a", "b"]
    assert to_spec(ScanWork()).WhichOneof("work") == "model_scan"
