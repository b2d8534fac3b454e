"""The error tree is total: every reason has one family, every family one gRPC code, every error keeps its facts."""

import pytest

from domains import errors
from domains.errors import FAMILY_OF, DeviceOpsError, ErrorReason, InvalidRequest, Violation, excerpt
from domains.failure import Failure

FAMILIES = set(DeviceOpsError.__subclasses__())
FAMILY_LIST = list(DeviceOpsError.__subclasses__())


def make(reason: ErrorReason) -> DeviceOpsError:
    family = FAMILY_OF[reason]
    if family is InvalidRequest:
        return InvalidRequest([Violation(field="a", message="b")], reason, number=1)
    return family("the thing, the limit, the remedy", reason, number=1)


def test_every_reason_has_a_family_and_every_family_a_reason() -> None:
    assert set(FAMILY_OF) == set(ErrorReason)
    assert set(FAMILY_OF.values()) == FAMILIES


@pytest.mark.parametrize("family", FAMILY_LIST)
def test_a_familys_default_reason_belongs_to_it(family: type[DeviceOpsError]) -> None:
    assert FAMILY_OF[family.default_reason] is family


@pytest.mark.parametrize("reason", ErrorReason)
def test_a_failure_repeats_reason_message_and_facts(reason: ErrorReason) -> None:
    error = make(reason)
    failure = Failure.of(error)
    assert (failure.reason, failure.message, failure.facts) == (reason, error.message, {"number": "1"})


def test_an_invalid_request_names_every_violation() -> None:
    wrong = [Violation(field=f"field_{n}", message=f"is wrong in way {n}") for n in range(3)]
    error = InvalidRequest(iter(wrong))
    assert error.violations == tuple(wrong)
    assert all(v.field in error.message and v.message in error.message for v in wrong)
    assert Failure.of(error).violations == tuple(wrong)


def test_facts_are_text_whatever_they_were() -> None:
    assert errors.NotFound("no", job_id="job-1", count=3, ratio=0.5).facts == {
        "job_id": "job-1",
        "count": "3",
        "ratio": "0.5",
    }


def test_words_of_a_caller_are_cut_to_256_characters() -> None:
    assert excerpt("x" * 256) == "x" * 256
    assert excerpt("x" * 257) == "x" * 255 + "…"
    assert excerpt(ValueError("a key")) == "a key"
