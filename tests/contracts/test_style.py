"""The style rules of the contract that buf does not know. Each test names everything that breaks its rule."""

import re

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from deviceops.common.v1 import access_pb2
from domains import limits
from protos.generate import PROTOS
from server.request_check import is_id
from tests.contracts.contract import Field, comment_of, fields, files, input_fields, message, messages, rpcs

UNSIGNED = {
    FieldDescriptorProto.TYPE_UINT32,
    FieldDescriptorProto.TYPE_UINT64,
    FieldDescriptorProto.TYPE_FIXED32,
    FieldDescriptorProto.TYPE_FIXED64,
}
FLOATS = {FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_FLOAT}
NUMBERS = FLOATS | {FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_INT64}
UNTYPED = {".google.protobuf." + name for name in ("Any", "Struct", "Value", "ListValue", "Empty")}

MAY_IMPORT = {
    "common": set[str](),
    "stdio": {"common"},
    "device": {"common"},
    "memory": {"common", "device"},
    "model": {"common", "device", "memory"},
    "postprocessing": {"common", "device", "memory", "model"},
    "inference": {"common", "device", "memory", "model", "postprocessing"},
    "processing": {"common", "device", "memory", "model", "inference", "postprocessing"},
}
CSHARP_MEMBERS = {
    *("descriptor", "parser", "clone", "equals", "merge_from", "calculate_size", "write_to"),
    *("get_hash_code", "to_string", "get_type", "types"),
}
"""Members that every generated C# message has already; a field of that name gets an underscore."""
WRONG_UNITS = re.compile(
    r"_(kb|mb|gb|kib|mib|gib|percent|pct|ms|us|ns|s|seconds|millis|minutes|hours|mw|ghz|hz|pixels)$"
)
UNIT_OF = {
    r"(^|_)(width|height|edge|radius|overlap|crop_left|crop_top)$": "_px",
    r"(^|_)(temperature)$": "_celsius",
    r"(^|_)(power|power_limit)$": "_watts",
    r"(^|_)(clock)$": "_mhz",
    r"(^|_)(utilization|utilisation|progress|fragmentation|occupancy)$": "_ratio",
    r"(^|_)(memory|bandwidth)$": "_bytes",
}
NO_QUANTITIES = {"AdjustStep.temperature"}
"""Names that sound like a measured quantity: this one is how warm a picture's colours are."""
MEASURED = ("_celsius", "_watts", "_mhz")
SET_BY_THE_SERVER = {"built_in", "configured"}
"""Fields of stored things that a request repeats and the server alone decides."""
FINITE_STREAMS = {"ReadBlob"}
"""Their bytes are there already."""
UNPAGED = {"ListDevices", "ListMemoryPools", "ListLoadedModels", "ListPostprocessors"}
"""Lists that hardware or this program bounds."""
SENSITIVE = {"ListWithheldImages", "GetWithheldImage"}
"""Looks at pictures that a safety policy withholds: for administrators alone."""
OUTPUTS = {
    "GeneratedImage": 2,
    "GenerationResult": 3,
    "ProcessedImage": 4,
    "PostprocessingResult": 5,
    "LoadedModel": 6,
    "ModelScanReport": 7,
    "ModelValidationReport": 8,
    "ModelConversionReport": 9,
    "ModelBenchmarkReport": 10,
    "DeviceBenchmarkReport": 11,
    "DeviceResetReport": 12,
    "BlobTransferReport": 13,
    "ReproductionReport": 14,
    "WorkflowResult": 15,
    "BatchResult": 16,
}
"""Numbers of a job's outputs: the same in every door and in WatchJob, so that one serialisation serves both."""


def domain(path: str) -> str:
    return path.split("/")[1]


def simple(type_name: str) -> str:
    return type_name.rpartition(".")[2]


def test_nothing_is_nested() -> None:
    """C# hides nested types under `.Types.`; a map is a nested type too."""
    assert not [m.name for _, m in messages() if m.nested_type or m.enum_type]


def test_nothing_is_untyped() -> None:
    assert not [f.where for f in fields() if f.field.type_name in UNTYPED]


def test_nothing_is_unsigned() -> None:
    assert not [f.where for f in fields() if f.field.type in UNSIGNED]


def test_csharp_namespace_follows_the_package() -> None:
    """`DeviceOps.Device.V1` would hide the type `Device` from all code below `DeviceOps`."""
    found = {file.name: (file.package, file.options.csharp_namespace) for file in files()}
    wanted = {path: (f"deviceops.{domain(path)}.v1", f"DeviceOps.Api.{domain(path).capitalize()}.V1") for path in found}
    assert found == wanted


def test_no_field_gets_an_underscore_in_csharp() -> None:
    def clashes(name: str, owner: str) -> bool:
        return name in CSHARP_MEMBERS or name.replace("_", "").lower() == owner.lower()

    assert not [f.where for f in fields() if clashes(f.field.name, f.message.name)]


def test_names_are_unique_over_the_contract() -> None:
    names = [thing.name for file in files() for thing in (*file.message_type, *file.enum_type, *file.service)]
    assert not sorted({name for name in names if names.count(name) > 1})


def test_units_are_the_known_ones() -> None:
    numeric = [f for f in fields() if f.field.type in NUMBERS]
    assert not [f.where for f in numeric if WRONG_UNITS.search(f.field.name) and not f.field.name.endswith("_per_s")]


def test_quantities_carry_their_unit() -> None:
    bare = [
        f"{f.where} wants {unit}"
        for f in fields()
        if f.field.type in NUMBERS
        for pattern, unit in UNIT_OF.items()
        if re.search(pattern, f.field.name) and f"{f.message.name}.{f.field.name}" not in NO_QUANTITIES
    ]
    assert not bare


def test_byte_counts_are_int64() -> None:
    counts = [f for f in fields() if f.field.name.endswith("_bytes") and f.field.type in NUMBERS]
    assert not [f.where for f in counts if f.field.type != FieldDescriptorProto.TYPE_INT64]


def test_ratios_and_measurements_can_hold_fractions() -> None:
    ratios = [f for f in fields() if f.field.name.endswith("_ratio")]
    assert not [f.where for f in ratios if f.field.type not in FLOATS]


def test_measurements_can_be_absent() -> None:
    """An absent temperature was not measured; a zero would be a lie."""
    measured = [f for f in fields() if f.field.name.endswith(MEASURED) and f.field.type in NUMBERS]
    single = [f for f in measured if f.field.label != FieldDescriptorProto.LABEL_REPEATED]
    assert not [f.where for f in single if not f.field.proto3_optional and not f.field.HasField("oneof_index")]


def test_imports_follow_the_arrows() -> None:
    wrong: list[str] = []
    for file in files():
        here = domain(file.name)
        for path in file.dependency:
            allowed = path.startswith("google/protobuf/") or domain(path) in MAY_IMPORT[here] | {here}
            wrong += [] if allowed else [f"{file.name} imports {path}"]
    assert not wrong


def test_every_rpc_says_how_it_fails() -> None:
    def says(comment: str) -> bool:
        return "Fails with" in comment or "cannot fail" in comment.lower() or "never fails" in comment.lower()

    assert not [rpc.where for rpc in rpcs() if not says(rpc.comment)]


def test_every_rpc_declares_one_scope() -> None:
    """Access control reads the scope from the descriptor; a method without one would be open to everybody or to nobody."""
    scopes = {rpc.where: rpc.method.options.Extensions[access_pb2.scope] for rpc in rpcs()}
    assert not [where for where, scope in scopes.items() if scope == access_pb2.ACCESS_SCOPE_UNSPECIFIED]


def test_rpcs_that_only_look_need_the_read_scope_alone() -> None:
    """And no others: a verb that changes something never passes for a look. Looks at what is sensitive need more."""
    looks = re.compile(r"(Get|List|Watch|Query|Read|Plan|Preview|Estimate|Inspect|Recommend)[A-Z]")
    reads = {
        rpc.where for rpc in rpcs() if rpc.method.options.Extensions[access_pb2.scope] == access_pb2.ACCESS_SCOPE_READ
    }
    assert reads == {rpc.where for rpc in rpcs() if looks.match(rpc.method.name) and rpc.method.name not in SENSITIVE}


def test_withheld_pictures_are_for_administrators() -> None:
    scopes = {
        rpc.method.name: rpc.method.options.Extensions[access_pb2.scope]
        for rpc in rpcs()
        if re.search("WithheldImages?$", rpc.method.name)
    }
    assert set(scopes) == SENSITIVE | {"ReleaseWithheldImage", "DeleteWithheldImage"}
    assert set(scopes.values()) == {access_pb2.ACCESS_SCOPE_ADMIN}


def test_every_stream_promises_heartbeats() -> None:
    """All but those that follow nothing: a client that hears nothing for twice as long takes the connection for dead."""
    streams = [rpc for rpc in rpcs() if rpc.method.server_streaming and rpc.method.name not in FINITE_STREAMS]
    assert len(streams) > 10
    assert not [rpc.where for rpc in streams if "After 10 s without" not in rpc.comment or "at once" not in rpc.comment]


def test_inputs_say_what_false_means() -> None:
    """Of every bool that a request can carry."""
    lacking = [f.where for f in input_fields() if f.field.type == FieldDescriptorProto.TYPE_BOOL and not decides(f)]
    assert not lacking


def decides(field: Field) -> bool:
    settings = field.message.name == "DeviceSettings" or field.field.name in SET_BY_THE_SERVER
    return settings or field.field.HasField("oneof_index") or "Default: false" in comment_of(field)


def test_failures_are_a_list() -> None:
    """IntelliSense joins lines, so each reason begins with `- `."""
    run_on: list[str] = []
    for rpc in rpcs():
        _, found, reasons = rpc.comment.partition("Fails with:\n")
        lines = reasons.splitlines() if found else []
        run_on += [f"{rpc.where}: {line}" for line in lines if re.match(r" ?[A-Z_]{4,}[,:]", line)]
    assert not run_on


def test_each_request_stands_beside_its_response() -> None:
    apart: list[str] = []
    for rpc in rpcs():
        names = [m.name for m in rpc.file.message_type]
        request, response = simple(rpc.method.input_type), simple(rpc.method.output_type)
        beside = request in names and names[names.index(request) + 1 :][:1] == [response]
        apart += [] if beside else [rpc.where]
    assert not apart


def test_lists_are_paged_and_filtered() -> None:
    wrong: list[str] = []
    for rpc in rpcs():
        if rpc.method.name.startswith("List") and rpc.method.name not in UNPAGED:
            request = {f.name: simple(f.type_name) for f in message(rpc.method.input_type).field}
            response = {f.name for f in message(rpc.method.output_type).field}
            wrong += [f"{rpc.where}: {name}" for name in ("page_size", "page_token") if name not in request]
            wrong += [] if "next_page_token" in response else [f"{rpc.where}: next_page_token"]
            wrong += [] if request.get("filter", "").endswith("Filter") else [f"{rpc.where}: filter"]
    assert not wrong


def test_every_page_may_be_shorter_than_asked() -> None:
    """Pages are cut at 2 MiB; a client that takes a short page for the last would lose the rest."""
    words = "in one answer, 1..1000. 0: 50. A page may be shorter and still not be the last."
    assert not [f.where for f in fields() if f.field.name == "page_size" and not comment_of(f).endswith(words)]


def test_siblings_say_the_same_in_the_same_words() -> None:
    """A reader who knows one request knows them all."""
    said = {
        "request_id": r"The caller's own id for this request, at most 64 characters of visible ASCII.* Empty: every call",
        "detached": r"True: leaving the call does not cancel the job\. Default: false, it does\.$",
        "etag": r"The etag of the [a-z ]+ as the caller last read it\. Empty: [a-z]+ it in any case\.$",
        "validate_only": r"Only tell what would be; [a-z]+ nothing\..* Default: false\.$",
        "page_token": r"`next_page_token` of the page before, with the same filter( and order)?\. Empty: the first page\.$",
        "next_page_token": r"For the next page\. Empty: this was the last one\.$",
    }
    # The etag of an answer is another thing: what `known_etag` takes.
    doors = [f for f in fields() if f.message.name.endswith("Request") or f.field.name == "next_page_token"]
    told = [f for f in doors if f.field.name in said]
    assert len(told) > 50
    assert not [f.where for f in told if not re.match(said[f.field.name], " ".join(comment_of(f).split()))]


def test_every_filter_reads_itself_and_its_labels_alike() -> None:
    filters = [m.name for _, m in messages() if m.name.endswith("Filter")]
    labels = "Having all of these labels. A label with an empty value stands for any value of its key."
    theirs = [f for f in fields() if f.field.name == "labels" and f.message.name in filters]
    assert len(theirs) > 3
    assert not [f.where for f in theirs if " ".join(comment_of(f).split()) != labels]


def test_every_service_says_the_limits_that_all_its_calls_have() -> None:
    """Ids do not repeat theirs at each field; the server holds the same figures in one check of every request."""
    texts = f"{limits.ID_BYTES} bytes, any other text {limits.TEXT_BYTES // 1024} KiB"
    figures = f"{texts}, a list in a request {limits.LIST_ENTRIES:,} entries"
    lacking: list[str] = []
    for file in files():
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        lacking += [s.name for number, s in enumerate(file.service) if figures not in comments[6, number]]
    assert not lacking


def test_no_id_in_a_request_says_more_than_all_ids_may_have() -> None:
    ids = [f for f in input_fields() if f.field.type == FieldDescriptorProto.TYPE_STRING and is_id(f.field.name)]
    said = {f.where: re.search(r"[Aa]t most (\d+) characters|1\.\.(\d+) characters", comment_of(f)) for f in ids}
    longest = {where: int(found[1] or found[2]) for where, found in said.items() if found}
    assert longest
    assert not [where for where, characters in longest.items() if characters > limits.ID_BYTES]


def test_page_fields_have_their_types() -> None:
    kinds = {
        "page_size": FieldDescriptorProto.TYPE_INT32,
        "page_token": FieldDescriptorProto.TYPE_STRING,
        "next_page_token": FieldDescriptorProto.TYPE_STRING,
    }
    assert not [f.where for f in fields() if kinds.get(f.field.name, f.field.type) != f.field.type]


def test_doors_share_one_shape() -> None:
    """A response that carries a job's event has it at 1; the request has its work at 1, then the job's options."""
    doors = {
        rpc.where: (message(rpc.method.input_type), message(rpc.method.output_type))
        for rpc in rpcs()
        if rpc.method.server_streaming
        and rpc.method.name not in {"WatchJob", "WatchSession"}
        and any(simple(f.type_name) == "JobEvent" for f in message(rpc.method.output_type).field)
    }
    tail = {"options": 2, "detached": 3, "request_id": 4}
    assert "Generate" in " ".join(doors)
    for where, (request, response) in doors.items():
        assert {f.name: f.number for f in request.field if f.number != 1} == tail, where
        assert {f.name: f.number for f in response.field}["event"] == 1, where
        assert all(OUTPUTS[simple(f.type_name)] == f.number for f in response.field if f.name != "event"), where


def test_watch_job_carries_every_output() -> None:
    watch = next(rpc for rpc in rpcs() if rpc.method.name == "WatchJob")
    found = {simple(f.type_name): f.number for f in message(watch.method.output_type).field}
    assert found == {"JobEvent": 1, **OUTPUTS}


def test_lines_fit_an_editor() -> None:
    lines = ((path, i, s) for path in PROTOS.rglob("*.proto") for i, s in enumerate(path.read_text().splitlines(), 1))
    assert not [f"{path.relative_to(PROTOS)}:{number}" for path, number, line in lines if len(line) > 140]
