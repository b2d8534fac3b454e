"""Safety has one vocabulary, and what it withholds stays withheld."""

from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FieldDescriptorProto

from tests.contracts.contract import comment_of, fields, files, input_fields, messages, rpcs

VERDICT = ".deviceops.postprocessing.v1.SafetyVerdict"
WITHHELD = ".deviceops.postprocessing.v1.WithheldImage"


def enum(name: str) -> EnumDescriptorProto:
    return next(enum for file in files() for enum in file.enum_type if enum.name == name)


def test_actions_go_from_the_mildest_to_the_strictest() -> None:
    """Of several policies the strictest action wins, so a client may take the largest number."""
    actions = [value.name.removeprefix("SAFETY_ACTION_") for value in enum("SafetyAction").value]
    assert actions == ["UNSPECIFIED", "ALLOW", "FLAG", "BLUR", "REVIEW", "BLOCK"]
    assert [value.number for value in enum("SafetyAction").value] == list(range(6))


def test_every_policy_that_applies_has_a_verdict_of_its_own() -> None:
    """A picture under several policies has several: wherever verdicts stand, they are a list."""
    verdicts = [f for f in fields() if f.field.type_name == VERDICT]
    assert {"ProcessedImage", "CheckedImage", "WithheldImage"} <= {f.message.name for f in verdicts}
    assert not [f.where for f in verdicts if f.field.label != FieldDescriptorProto.LABEL_REPEATED]


def test_what_is_done_is_said_by_the_action_alone() -> None:
    """A bool beside it, `safe` or `triggered`, could contradict it."""
    told = [m for _, m in messages() if m.name in {"SafetyVerdict", "SafetyScore", "CheckedImage"}]
    assert len(told) == 3
    assert not [(m.name, f.name) for m in told for f in m.field if f.type == FieldDescriptorProto.TYPE_BOOL]
    assert all(any(f.type_name.endswith(".SafetyAction") for f in m.field) for m in told)


def test_a_withheld_picture_is_no_blob() -> None:
    """Blobs can be read with a smaller scope than the reviewer's."""
    withheld = next(m for file, m in messages() if f".{file.package}.{m.name}" == WITHHELD)
    assert not [f.name for f in withheld.field if "blob" in f.name or f.type_name.endswith(".ImageFile")]
    assert not [f.where for f in input_fields() if f.field.type_name == WITHHELD]


def test_only_a_review_shows_a_withheld_picture() -> None:
    holders = {f.message.name for f in fields() if f.field.type_name == WITHHELD}
    assert holders == {"ListWithheldImagesResponse", "GetWithheldImageResponse"}


def test_a_release_needs_a_cause_and_is_told() -> None:
    cause = next(f for f in fields() if (f.message.name, f.field.name) == ("ReleaseWithheldImageRequest", "cause"))
    assert "Empty: INVALID_FIELD" in comment_of(cause)
    audit = next(m for _, m in messages() if m.name == "SafetyRelease")
    assert {f.name for f in audit.field} == {"released_by", "cause", "release_time"}
    rpc = next(rpc for rpc in rpcs() if rpc.method.name == "ReleaseWithheldImage")
    assert "The log notes who released it" in rpc.comment
