"""The contract's ErrorReason and the errors that Python raises are one list."""

import re

from domains.errors import FAMILY_OF, ErrorReason
from domains.reasons import NATURE_OF, Domain, Severity
from tests.contracts.contract import files, rpcs


def contract_reasons() -> set[str]:
    enums = (enum for file in files() for enum in file.enum_type if enum.name == "ErrorReason")
    return {value.name.removeprefix("ERROR_REASON_") for value in next(enums).value} - {"UNSPECIFIED"}


def test_every_reason_has_the_same_name_on_both_sides() -> None:
    assert contract_reasons() == {reason.value for reason in ErrorReason}


def test_every_reason_belongs_to_one_family() -> None:
    assert set(FAMILY_OF) == set(ErrorReason)


def test_every_reason_has_one_nature() -> None:
    """Domain, severity and whether to try again: a job's failure tells them."""
    assert set(NATURE_OF) == set(ErrorReason)


def test_every_domain_and_severity_of_a_nature_is_one_of_the_contract() -> None:
    values = {value.name for file in files() for enum in file.enum_type for value in enum.value}
    assert {f"DOMAIN_{domain.name}" for domain in Domain} <= values
    assert {f"SEVERITY_{severity.name}" for severity in Severity} <= values


def test_rpc_comments_name_only_reasons_that_exist() -> None:
    unknown: list[str] = []
    for rpc in rpcs():
        _, _, reasons = rpc.comment.partition("Fails with")
        lists = re.findall(r"^[ -]*([A-Z_]{4,}(?:(?:, | or | and )[A-Z_]{4,})*):", reasons, re.MULTILINE)
        named = {name for words in lists for name in re.findall(r"[A-Z_]{4,}", words)}
        unknown += [f"{rpc.where}: {name}" for name in sorted(named - contract_reasons())]
    assert not unknown
