"""Which calls count once, however often they arrive."""

import re

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from deviceops.common.v1 import access_pb2
from tests.contracts.contract import Rpc, message, rpcs

ASK_FOR_A_STATE = {
    *("CancelJob", "PauseJob", "ResumeJob"),
    *("PauseSession", "ResumeSession", "CancelSession", "CloseSession"),
    *("SetSystemMode", "DrainSystem", "ConfirmClock"),
}
"""Asking again for a state that is there, or on its way, changes nothing."""
GONE_IS_GONE = {
    *("DeleteReservation", "DeleteBlob", "ForgetModel", "DeleteJob", "DeleteWorkflow"),
}
"""Deleting by id: the second time there is no such thing."""
SAY_THEIR_PLACE = {
    "WriteBlobChunk": "bytes lie where their offset says",
    "RegisterWorkflow": "the same workflow under its own id",
}
LOOK_ONLY = {
    "RefreshDevices": "looks at the hardware as it is",
    "ReconcileModelCache": "compares, and repairs what is still to be repaired",
    "CheckSafety": "tells what a classifier says, and keeps nothing",
    "ListWithheldImages": "looks, with a wider scope than others",
    "GetWithheldImage": "looks, with a wider scope than others",
}
EXEMPT = ASK_FOR_A_STATE | GONE_IS_GONE | set(SAY_THEIR_PLACE) | set(LOOK_ONLY)


def changes(rpc: Rpc) -> bool:
    return rpc.method.options.Extensions[access_pb2.scope] != access_pb2.ACCESS_SCOPE_READ


def takes_request_id(rpc: Rpc) -> bool:
    return any(field.name == "request_id" for field in message(rpc.method.input_type).field)


def test_whatever_starts_or_changes_something_takes_a_request_id() -> None:
    """Or is named above, with the reason why a repetition does no harm."""
    lacking = {rpc.method.name for rpc in rpcs() if changes(rpc) and not takes_request_id(rpc)}
    assert lacking == EXEMPT & {rpc.method.name for rpc in rpcs()}


def test_no_exemption_is_left_of_a_method_that_is_gone() -> None:
    assert not EXEMPT - {rpc.method.name for rpc in rpcs()}


def test_whatever_only_looks_takes_none() -> None:
    assert not [rpc.where for rpc in rpcs() if not changes(rpc) and takes_request_id(rpc)]


def test_an_update_with_an_etag_takes_a_request_id() -> None:
    """A client that did not get the answer would otherwise hear ETAG_MISMATCH of its own change."""
    for rpc in rpcs():
        names = {field.name for field in message(rpc.method.input_type).field}
        if "etag" in names and rpc.method.name not in GONE_IS_GONE:
            assert "request_id" in names, rpc.where


def test_a_request_id_is_text_and_its_misuse_is_told() -> None:
    for rpc in filter(takes_request_id, rpcs()):
        (field,) = (field for field in message(rpc.method.input_type).field if field.name == "request_id")
        assert field.type == FieldDescriptorProto.TYPE_STRING, rpc.where
        assert re.search(r"^ ?- .*\bREQUEST_ID_REUSED\b", rpc.comment, re.MULTILINE), rpc.where
