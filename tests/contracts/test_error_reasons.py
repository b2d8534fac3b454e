"""The contract's ErrorReason and the errors that Python raises are one list."""

import re

from domains.errors import FAMILY_OF, ErrorReason
from tests.contracts.contract import files, rpcs


def contract_reasons() -> set[str]:
    enums = (enum for file in files() for enum in file.enum_type if enum.name == "ErrorReason")
    return {value.name.removeprefix("ERROR_REASON_") for value in next(enums).value} - {"UNSPECIFIED"}


def test_every_reason_has_the_same_name_on_both_sides() -> None:
    assert contract_reasons() == {reason.value for reason in ErrorReason}


def test_every_reason_belongs_to_one_family() -> None:
    assert set(FAMILY_OF) == set(ErrorReason)


def test_rpc_comments_name_only_reasons_that_exist() -> None:
    unknown: list[str] = []
    for rpc in rpcs():
        _, _, reasons = rpc.comment.partition("Fails with")
        lists = re.findall(r"^[ -]*([A-Z_]{4,}(?:(?:, | or | and )[A-Z_]{4,})*):", reasons, re.MULTILINE)
        named = {name for words in lists for name in re.findall(r"[A-Z_]{4,}", words)}
        unknown += [f"{rpc.where}: {name}" for name in sorted(named - contract_reasons())]
    assert not unknown
