"""What the server writes into an answer stays within the limits from which the largest answers are computed."""

from hypothesis import given
from hypothesis import strategies as st

from domains import limits
from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.failure import Failure
from server import convert

texts = st.text(max_size=30_000)
violations = st.builds(Violation, field=texts, message=texts, allowed=texts)


@given(
    texts, st.dictionaries(texts, texts, max_size=10), st.lists(violations, max_size=80), st.lists(texts, max_size=9)
)
def test_no_failure_is_larger_than_its_limit(
    text: str, facts: dict[str, str], wrong: list[Violation], actions: list[str]
) -> None:
    failure = Failure(
        reason=ErrorReason.DRIVER_ERROR,
        message=text,
        facts=facts,
        violations=tuple(wrong),
        actions_taken=tuple(actions),
    )
    message = convert.to_failure(failure, 1.0)
    assert message.ByteSize() <= limits.FAILURE_BYTES
    assert message.reason == convert.to_reason(ErrorReason.DRIVER_ERROR)


def test_a_failure_of_usual_size_keeps_every_word() -> None:
    failure = Failure(reason=ErrorReason.RUN_TIMEOUT, message="x" * 2000, facts={"limit_s": "5"})
    assert convert.to_failure(failure, 1.0).message == "x" * 2000


def test_findings_are_few_and_short() -> None:
    wrong = [Violation(field=f"f{n}", message="ü" * 3000) for n in range(200)]
    findings = convert.to_findings(InvalidRequest(wrong))
    assert len(findings) == limits.VIOLATIONS
    assert all(finding.ByteSize() <= limits.FINDING_BYTES for finding in findings)
    assert findings[0].field == "f0"
