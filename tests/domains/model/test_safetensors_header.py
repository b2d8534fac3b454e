"""The strict reader of safetensors headers, held against damaged files, random bytes, and the format's own library."""

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from domains.errors import DataLoss, ErrorReason
from domains.model.catalogue import EMBEDDED
from domains.model.safetensors_header import Header, read_header

WEIGHTS = sorted(EMBEDDED.rglob("*.safetensors"))


def written(folder: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file with this header (an object for JSON, or bytes as they are), however wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "weights.safetensors"
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(begin: int, end: int, dtype: str = "F32", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


LONG = "x" * 255
"""As much of a key as a message tells."""
DEFECTS: list[tuple[str, object, bytes, str]] = [
    ("no JSON", b"{hello", b"", "JSON"),
    ("a list", b"[]", b"", "begin with"),
    ("space before it", b' {"a":1}', b"", "begin with"),
    ("not UTF-8", b'{"\xff\xff": 1}', b"", "JSON"),
    ("UTF-16", '{"a": 1}'.encode("utf-16"), b"", "begin with"),
    ("half a character", b'{"\\ud800": {"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', b"", "JSON"),
    ("NaN", b'{"a": NaN}', b"", "JSON"),
    ("endless nesting", b'{"a":' + b"[" * 200_000, b"", "JSON"),
    ("endless number", b'{"a":' + b"9" * 5_000 + b"}", b"", "malformed"),
    ("a name twice", b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":1}', b"", "comes twice"),
    ("a key twice", b'{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}', b"", "comes twice"),
    ("entry is no object", {"a": 3}, b"", "malformed"),
    ("a key twice in a further field", b'{"a":{"x":{"b":1,"b":2}}}', b"", "comes twice"),
    ("an entry without end", b'{"a":{"shape":[' + b"0," * 100_000, b"", "longer than 16384"),
    ("metadata without end", b'{"__metadata__":{"a":"' + b"x" * 3_000_000 + b'"}}', b"", "longer than 2097152"),
    (
        "a long name twice",
        f'{{"{LONG}xx":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"{LONG}xx":1}}'.encode(),
        b"",
        f"the key '{LONG}…' comes twice",
    ),
    ("a long key twice", f'{{"a":{{"{LONG}xx":1,"{LONG}xx":1}}}}'.encode(), b"", f"the key '{LONG}…' comes twice"),
    ("a long key alone", f'{{"{LONG}xx" 1}}'.encode(), b"", f"no ':' after the key '{LONG}…'"),
    ("metadata twice", b'{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}', b"", "comes twice"),
    ("no comma", b'{"__metadata__":{} "a":1}', b"", "neither"),
    ("a comma too many", b'{"__metadata__":{},}', b"", "no key"),
    ("no colon", b'{"a" 1}', b"", "no ':'"),
    ("no end", b'{"__metadata__":{}', b"", "neither"),
    ("something behind it", b'{"__metadata__":{}} {}', b"", "follows"),
    ("dtype missing", {"a": {"shape": [1], "data_offsets": [0, 4]}}, b"1234", "malformed"),
    ("shape of texts", {"a": tensor(0, 4, shape=["1"])}, b"1234", "malformed"),
    ("shape of fractions", {"a": tensor(0, 4, shape=[1.5])}, b"1234", "malformed"),
    ("shape of truths", {"a": tensor(0, 4, shape=[True])}, b"1234", "malformed"),
    ("three offsets", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"1234", "malformed"),
    ("metadata no texts", {"__metadata__": {"a": 1}}, b"", "metadata"),
    ("unknown dtype", {"a": tensor(0, 4, "F31")}, b"1234", "unknown dtype"),
    ("wrong dtype", {"a": tensor(0, 4, "F16")}, b"1234", "takes 2"),
    ("negative edge", {"a": tensor(0, 4, shape=[-1, -1])}, b"1234", "impossible shape"),
    ("overflowing shape", {"a": tensor(0, 4, shape=[2**62, 2**62])}, b"1234", "gives tensor"),
    ("product wraps to the right size", {"a": tensor(0, 0, shape=[2**30, 2**30, 2**4])}, b"", "takes"),
    ("too many edges", {"a": tensor(0, 4, shape=[1] * 17)}, b"1234", "impossible shape"),
    ("negative offset", {"a": tensor(-4, 0)}, b"", "bytes -4..0"),
    ("end before begin", {"a": tensor(4, 0, shape=[1])}, b"1234", "bytes 4..0"),
    ("overlap", {"a": tensor(0, 8), "b": tensor(4, 12)}, b"x" * 12, "overlapping"),
    ("same bytes twice", {"a": tensor(0, 4), "b": tensor(0, 4)}, b"x" * 4, "overlapping"),
    ("a hole", {"a": tensor(0, 4), "b": tensor(8, 12)}, b"x" * 12, "hole of 4"),
    ("a hole at the start", {"a": tensor(4, 8)}, b"x" * 8, "hole of 4"),
    ("past the end", {"a": tensor(0, 400)}, b"x" * 8, "cut off"),
    ("bytes left over", {"a": tensor(0, 4)}, b"x" * 8, "belong to no tensor"),
    ("a name without end", {"a" * 600: tensor(0, 4)}, b"1234", "600 characters"),
]


@pytest.mark.parametrize(("header", "data", "says"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_each_defect_is_named_with_its_file(tmp_path: Path, header: object, data: bytes, says: str) -> None:
    with pytest.raises(DataLoss, match=r"weights\.safetensors") as caught:
        read_header(written(tmp_path, header, data))
    assert caught.value.reason is ErrorReason.MODEL_CORRUPT
    assert says in caught.value.message
    assert caught.value.facts["file"] == "weights.safetensors"
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("length", [8 * 10**9, 2**64 - 1, 3, 101 * 1024 * 1024])
def test_a_header_longer_than_the_file_is_not_read(tmp_path: Path, length: int) -> None:
    with pytest.raises(DataLoss, match=r"claims a header|no plain JSON"):
        read_header(written(tmp_path, b"{}", length=length))


def test_a_header_over_the_limit_is_not_read_even_if_it_is_there(tmp_path: Path) -> None:
    path = written(tmp_path, b"{}", length=16 * 1024 * 1024 + 1)
    os.truncate(path, 32 * 1024 * 1024)  # sparse: takes no disk
    with pytest.raises(DataLoss, match="claims a header of 16777217 bytes; at most 16777216 are read"):
        read_header(path)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 500, -1])
def test_a_truncated_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(WEIGHTS[0].read_bytes()[:cut])
    with pytest.raises(DataLoss, match=r"weights\.safetensors"):
        read_header(path)


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    header = {str(number): tensor(0, 0) for number in range(32_769)}
    with pytest.raises(DataLoss, match="more than 32768 tensors"):
        read_header(written(tmp_path, header))


def test_metadata_that_is_null_and_further_fields_of_an_entry_are_harmless(tmp_path: Path) -> None:
    path = written(tmp_path, {"__metadata__": None, "a": {**tensor(0, 4), "note": {"by": ["x", 1]}}}, b"1234")
    assert _seen_by_us(read_header(path)) == _seen_by_library(path) == {"a": ("F32", [1])}


def test_spaces_and_letters_of_all_lengths_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    header = '{ "ä€🦉":\n{"dtype" : "F32","shape":[ 1 ], "data_offsets":[0,4]} \t,"b\\u00e4": '
    text = (header + json.dumps(tensor(4, 8)) + " }   ").encode()
    path = written(tmp_path, text, b"12345678")
    assert _seen_by_us(read_header(path)) == _seen_by_library(path)
    assert len(read_header(path).tensors) == 2


HOSTILE: dict[str, Callable[[], bytes]] = {
    "zeros": lambda: b'{"a":[' + b"0," * 8_000_000 + b"0]}",
    "zeros in a further field": lambda: b'{"a":{"x":[' + b"0," * 8_000_000 + b"0]}}",
    "small entries": lambda: b"{" + b",".join(b'"%x":1' % n for n in range(1_200_000)) + b"}",
    "one long name": lambda: b'{"' + b"a" * 16_000_000 + b'":1}',
    "wide characters": lambda: b'{"' + "🦉".encode() * 4_000_000 + b'":1}',
    "spaces": lambda: b"{" + b" " * 16_000_000 + b"}",
    "metadata of many words": lambda: (
        b'{"__metadata__":{' + b",".join(b'"%x":""' % n for n in range(1_200_000)) + b"}}"
    ),
    "many empty tensors": lambda: (
        b"{" + b",".join(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n for n in range(250_000)) + b"}"
    ),
}
"""Made when a test asks: all of them take a second, and 100 MB, of each process that collects tests."""


@pytest.fixture(scope="module")
def usual_s() -> float:
    """Seconds that Python's own parser takes for a header of that size."""
    header = HOSTILE["many empty tensors"]()
    begin = time.thread_time()
    json.loads(header)
    return time.thread_time() - begin


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_takes_no_longer_than_pythons_parser(tmp_path: Path, name: str, usual_s: float) -> None:
    path = written(tmp_path, HOSTILE[name]())
    begin = time.thread_time()
    _read_or_refuse(path)
    assert time.thread_time() - begin <= usual_s


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_takes_little_memory(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, HOSTILE[name]())
    tracemalloc.start()
    _read_or_refuse(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 64 * 1024 * 1024


def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    link = tmp_path / "link.safetensors"
    link.symlink_to(WEIGHTS[0])
    for path in (tmp_path, pipe, link, tmp_path / "absent.safetensors"):
        with pytest.raises(DataLoss, match="cannot be read"):
            read_header(path)


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.parent.name)
def test_the_embedded_weights_read_as_the_library_reads_them(path: Path) -> None:
    assert _seen_by_us(read_header(path)) == _seen_by_library(path)


_SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
_DTYPES = st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int64", "bool"])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=20), st.tuples(_SHAPES, _DTYPES), max_size=6))
def test_what_the_library_writes_is_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[tuple[int, ...], str]]
) -> None:
    path = tmp_path_factory.mktemp("valid") / "weights.safetensors"
    tensors.pop("__metadata__", None)
    save_file({name: np.zeros(shape, dtype) for name, (shape, dtype) in tensors.items()}, path, {"k": "v"})
    assert _seen_by_us(read_header(path)) == _seen_by_library(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content)
    _read_or_refuse(path)


_SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
_NUMBERS = st.integers(-4, 40) | st.sampled_from([2**31, 2**32, 2**63, 2**64, 2**65]) | _SCALARS
_ENTRIES = _SCALARS | st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8", "F4", "BOOL", "X"]) | _SCALARS,
        "shape": st.lists(_NUMBERS, max_size=4) | _SCALARS,
        "data_offsets": st.lists(_NUMBERS, min_size=1, max_size=3) | _SCALARS,
    },
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.text(max_size=4), _ENTRIES, max_size=4), st.integers(0, 40))
def test_what_we_accept_the_library_accepts(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, object], size: int
) -> None:
    path = written(tmp_path_factory.getbasetemp(), header, b"\0" * size)
    read = _read_or_refuse(path)
    if read is not None:
        assert _seen_by_us(read) == _seen_by_library(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_damaged_byte_in_a_real_header_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(SMALL)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(content)
    read = _read_or_refuse(path)
    if read is not None:
        assert _seen_by_us(read) == _seen_by_library(path)


def _small() -> bytes:
    header = json.dumps({"a": tensor(0, 4), "b": tensor(4, 8, "F16", [2, 1]), "c": tensor(8, 8, "I64", [0])}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 8


SMALL = _small()


def _read_or_refuse(path: Path) -> Header | None:
    try:
        return read_header(path)
    except DataLoss as error:
        refusal = error
    assert refusal.reason is ErrorReason.MODEL_CORRUPT
    assert refusal.message.encode()  # a message must be able to leave the process
    return None


def _seen_by_us(header: Header) -> dict[str, tuple[str, list[int]]]:
    return {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in header.tensors}


def _seen_by_library(path: Path) -> dict[str, tuple[str, list[int]]] | str:
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it cannot be iterated)
            return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except SafetensorError as error:
        return str(error)


@pytest.mark.parametrize("more", [{}, {"note": 1}], ids=["plain", "judged one by one"])
def test_a_name_and_a_shape_may_be_as_long_as_their_limits(tmp_path: Path, more: dict[str, int]) -> None:
    name, shape = "n" * 512, [1] * 16
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4], **more}}
    assert _seen_by_us(read_header(written(tmp_path, header, b"1234"))) == {name: ("F32", shape)}
    for wrong in ({name + "n": header[name]}, {name: {**header[name], "shape": [*shape, 1]}}):
        with pytest.raises(DataLoss):
            read_header(written(tmp_path, wrong, b"1234"))


@pytest.mark.parametrize("more", [{}, {"note": 1}], ids=["plain", "judged one by one"])
def test_as_many_tensors_as_the_limit_are_read(tmp_path: Path, more: dict[str, int]) -> None:
    header = {str(number): {**tensor(0, 0), **more} for number in range(32_768)}
    assert len(read_header(written(tmp_path, header)).tensors) == 32_768


def test_a_header_as_long_as_the_limit_is_read(tmp_path: Path) -> None:
    text = b"{}".ljust(16 * 1024 * 1024)
    assert read_header(written(tmp_path, text)).tensors == ()


@pytest.mark.parametrize("more", [{}, {"note": 1}], ids=["plain", "judged one by one"])
def test_an_empty_tensor_has_edges_below_the_limit(tmp_path: Path, more: dict[str, int]) -> None:
    edge = 2**48
    header = {"a": {**tensor(0, 0, shape=[0, edge - 1]), **more}}
    assert _seen_by_us(read_header(written(tmp_path, header))) == {"a": ("F32", [0, edge - 1])}
    with pytest.raises(DataLoss, match="the empty tensor 'a' an impossible shape"):
        read_header(written(tmp_path, {"a": {**tensor(0, 0, shape=[0, edge]), **more}}))


BITS = {
    4: ("F4",),
    6: ("F6_E2M3", "F6_E3M2"),
    8: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    16: ("I16", "U16", "F16", "BF16"),
    32: ("I32", "U32", "F32"),
    64: ("I64", "U64", "F64", "C64"),
}
"""Of each number, by the format."""


@pytest.mark.parametrize(("dtype", "bits"), [(name, bits) for bits, names in BITS.items() for name in names])
@pytest.mark.parametrize("more", [{}, {"note": 1}], ids=["plain", "judged one by one"])
def test_a_number_takes_the_bits_of_its_dtype(tmp_path: Path, dtype: str, bits: int, more: dict[str, int]) -> None:
    entry = {**tensor(0, bits, dtype, [8]), **more}
    (found,) = read_header(written(tmp_path, {"a": entry}, bytes(bits))).tensors
    assert (found.dtype, found.elements, found.end) == (dtype, 8, bits)
    for size in (bits - 1, bits + 1):
        with pytest.raises(DataLoss, match=f"takes {bits}"):
            read_header(written(tmp_path, {"a": {**tensor(0, size, dtype, [8]), **more}}, bytes(size)))
