"""Untrusted pictures are decoded in a process that may die; the caller gets BAD_IMAGE, and the next picture is decoded."""

import ast
import asyncio
import os
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

import domains
from domains.errors import ErrorReason, InternalError, InvalidRequest
from domains.imaging import decode, encode
from domains.imaging.decoder_child import ADDRESS_SPACE_BYTES
from domains.imaging.decoder_frames import ANSWER, PICTURE, READY, REFUSED, TEXTS, TEXTS_BYTES, Refused
from domains.imaging.decoder_process import PictureDecoder
from tests.domains.imaging.mutations import mutations
from tests.domains.imaging.test_decode import FILES, LIMIT, PIXELS, bomb

READERS = {
    "decode",
    "probe",
    "read_manifest",
    "read_marks",
    "read_texts",
    "texts",
    "avif",
    "header",
    "provenance",
    "MEDIA_TYPES",
}

_CHILD = """
import os, signal, time
from domains.imaging import decoder_child
from domains.imaging.decode import decode
def harmed(data, **more):
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"spin":
        while True: pass
    if data == b"grow":
        kept = bytearray(64 << 30)
    if data == b"print":
        print("a print of a library", flush=True)
    if data == b"write":
        os.write(os.open(NAME, os.O_CREAT | os.O_WRONLY), b"x" * 10)
    return decode(FILE, **more)
FILE = bytes.fromhex("HEX")
NAME = "PLACE"
decoder_child.serve(harmed)
"""


@pytest.fixture
async def decoder() -> AsyncIterator[PictureDecoder]:
    one = PictureDecoder()
    yield one
    await one.close()


@pytest.fixture
async def harmed(tmp_path: Path) -> AsyncIterator[PictureDecoder]:
    """A decoder whose process does what certain files tell it to do, as a hole in a library would."""
    code = _CHILD.replace("HEX", FILES["image/png"].hex()).replace("PLACE", str(tmp_path / "file"))
    one = PictureDecoder([sys.executable, "-c", code])
    yield one
    await one.close()


async def refusal(decoder: PictureDecoder, data: bytes, max_pixels: int = LIMIT) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await decoder.decode(data, max_pixels=max_pixels, field="generation.init_image")
    assert caught.value.reason is ErrorReason.BAD_IMAGE
    assert [one.field for one in caught.value.violations] == ["generation.init_image"]
    return caught.value


@pytest.mark.parametrize("channels", [1, 3, 4])
async def test_the_process_decodes_what_decode_does(decoder: PictureDecoder, channels: int) -> None:
    for file in FILES.values():
        apart = await decoder.decode(file, max_pixels=LIMIT, channels=channels)  # pyright: ignore[reportArgumentType]
        np.testing.assert_array_equal(apart, decode(file, max_pixels=LIMIT, channels=channels))  # pyright: ignore[reportArgumentType]
        apart[0, 0] = 7
    assert decoder.deaths == 0


async def test_a_bomb_is_refused_by_its_header_and_the_process_stays(decoder: PictureDecoder) -> None:
    error = await refusal(decoder, bomb(60_000), 1 << 24)
    assert "60000×60000" in error.message
    assert error.facts == {"pixels": "3600000000", "max_pixels": str(1 << 24)}
    assert decoder.deaths == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize("harm", ["crash", "spin", "grow", "write"])
async def test_a_picture_that_ends_its_decoder_is_bad_and_harms_nothing_else(
    harmed: PictureDecoder, tmp_path: Path, harm: str
) -> None:
    await harmed.decode(b"", max_pixels=LIMIT)
    begin = time.monotonic()
    await refusal(harmed, harm.encode())
    assert time.monotonic() - begin < 8
    assert harmed.deaths == 1
    assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size == 0
    assert (await harmed.decode(b"", max_pixels=LIMIT)).shape == PIXELS.shape


async def test_a_print_of_a_library_is_no_answer(harmed: PictureDecoder) -> None:
    np.testing.assert_array_equal(await harmed.decode(b"print", max_pixels=LIMIT), PIXELS)


async def test_a_caller_who_leaves_ends_the_decoder_and_not_the_next_picture(harmed: PictureDecoder) -> None:
    await harmed.decode(b"", max_pixels=LIMIT)
    left = asyncio.create_task(harmed.decode(b"spin", max_pixels=LIMIT))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    np.testing.assert_array_equal(await harmed.decode(b"", max_pixels=LIMIT), PIXELS)


@pytest.mark.parametrize("claimed", [(1, 1 << 40, 1 << 40), (1, 0, 0), (2, 1 << 40, 0), (9, 1, 1), (2, 1, 0)])
async def test_a_decoder_that_was_taken_over_is_not_believed(claimed: tuple[int, int, int]) -> None:
    answer = struct.pack("<BQQ", *claimed) + b"\xff" * 64
    code = f"import os, sys; os.write(1, b'ready\\n' + {answer!r}); sys.stdin.read()"
    one = PictureDecoder([sys.executable, "-c", code])
    await refusal(one, FILES["image/png"])
    assert one.deaths == 1


@pytest.mark.parametrize("more", [0, 1])
async def test_a_refusal_has_a_largest_size(more: int) -> None:
    size = 16 * 1024 + more
    blank = len(msgspec.msgpack.encode(Refused("x" * 1000, {})))
    body = msgspec.msgpack.encode(Refused("x" * (1000 + size - blank), {}))
    assert len(body) == size
    answer = READY + ANSWER.pack(REFUSED, size, 0) + body
    one = PictureDecoder([sys.executable, "-c", f"import os, sys; os.write(1, {answer!r}); sys.stdin.read()"])
    error = await refusal(one, FILES["image/png"])
    await one.close()
    assert (one.deaths, "xxx" in error.message) == (more, not more)


async def test_a_process_that_does_not_start_is_a_fault_of_the_server() -> None:
    with pytest.raises(InternalError):
        await PictureDecoder([sys.executable, "-c", "raise SystemExit(1)"]).decode(b"", max_pixels=1)


async def child_of(decoder: PictureDecoder) -> psutil.Process:
    await decoder.decode(FILES["image/png"], max_pixels=LIMIT)
    (child,) = (
        one for one in psutil.Process(os.getpid()).children() if "domains.imaging.decoder_child" in one.cmdline()
    )
    return child


async def test_the_process_knows_no_secrets(decoder: PictureDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_TEST_SECRET", "a-secret")
    assert "a-secret" not in (await child_of(decoder)).environ().values()


@pytest.mark.skipif(sys.platform != "linux", reason="Windows has no such limits")
async def test_the_process_leaves_no_core_dump_and_writes_no_file(decoder: PictureDecoder) -> None:
    import resource

    child = await child_of(decoder)
    # For 0, Linux still sends the dump, and the picture in it, to a program that `core_pattern` names.
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert resource.prlimit(child.pid, resource.RLIMIT_CORE) == ((0, 0) if hard == 0 else (1, 1))
    assert resource.prlimit(child.pid, resource.RLIMIT_FSIZE) == (0, 0)
    assert resource.prlimit(child.pid, resource.RLIMIT_AS)[0] <= ADDRESS_SPACE_BYTES


async def test_mutated_pictures_are_pictures_or_bad_images(decoder: PictureDecoder) -> None:
    pixels: list[int] = []
    reasons: list[ErrorReason] = []
    for _, data in mutations(300, seed=14):
        try:
            pixels.append((await decoder.decode(data, max_pixels=LIMIT))[..., 0].size)
        except InvalidRequest as error:
            reasons.append(error.reason)
    assert min(len(pixels), len(reasons)) > 10
    assert set(reasons) == {ErrorReason.BAD_IMAGE}
    assert max(pixels) <= LIMIT
    whole = encode(PIXELS, "image/png")
    np.testing.assert_array_equal(await decoder.decode(whole, max_pixels=LIMIT), PIXELS)


def test_opencv_decodes_nothing() -> None:
    forbidden = {"imdecode", "imdecodemulti", "imdecodeanimation", "imread", "imreadmulti", "imreadanimation"}
    root = Path(domains.__file__).parents[1]
    files = [file for folder in ("domains", "server") for file in (root / folder).rglob("*.py")]
    assert len(files) > 100
    for file in files:
        names = {node.attr for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
        assert not names & forbidden, file


def test_the_servers_own_process_opens_no_picture() -> None:
    """Pillow's libavif reads even the size of an AVIF, so a header is read by the decoder's process too."""
    root = Path(domains.__file__).parents[1]
    files = [
        file for folder in ("server", "domains/processing", "domains/memory") for file in (root / folder).rglob("*.py")
    ]
    ours = [file for file in files if root / "server" / "cli" not in file.parents]
    assert len(ours) > 100
    for file in ours:
        nodes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        taken = {(node.module or "", name.name) for node in nodes for name in node.names}
        readers = {name for module, name in taken if module.startswith("domains.imaging") and name in READERS}
        assert not readers, file
        assert not [module for module, _ in taken if module.partition(".")[0] in ("PIL", "cv2")], file


async def test_a_process_that_dies_before_it_is_ready_is_started_once_more(tmp_path: Path) -> None:
    code = f"""
import os, runpy
from pathlib import Path
place = Path({str(tmp_path)!r}) / str(os.getpid())
place.touch()
if len(list(place.parent.iterdir())) == 1:
    os.abort()
runpy.run_module("domains.imaging.decoder_child", run_name="__main__")
"""
    decoder = PictureDecoder((sys.executable, "-c", code))
    try:
        pixels = await decoder.decode(encode(np.zeros((8, 8, 3), np.uint8), "image/png"), max_pixels=64)
    finally:
        await decoder.close()
    assert pixels.shape == (8, 8, 3)
    assert len(os.listdir(tmp_path)) == 2


def saying(answer: bytes) -> PictureDecoder:
    """A decoder whose process says this, whatever it is asked."""
    code = f"import os, sys; os.write(1, {READY + answer!r}); sys.stdin.read()"
    return PictureDecoder([sys.executable, "-S", "-c", code])


async def test_the_texts_of_a_file_are_read_there_too(decoder: PictureDecoder) -> None:
    assert await decoder.texts(FILES["image/png"]) == {"deviceops": '{"seed": 1}'}
    with pytest.raises(InvalidRequest) as refused:
        await decoder.texts(b"", field="image.blob_id")
    assert [(one.field, one.message) for one in refused.value.violations] == [("image.blob_id", "the image is empty")]
    with pytest.raises(InvalidRequest) as refused:
        await decoder.texts(b"")
    assert [one.field for one in refused.value.violations] == ["image"]
    assert decoder.deaths == 0


@pytest.mark.parametrize("more", [0, 1])
async def test_texts_have_a_largest_size(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    assert TEXTS_BYTES == 5 * 1024**2
    monkeypatch.setattr("domains.imaging.decoder_process.TEXTS_BYTES", 100)
    body = msgspec.msgpack.encode({"prompt": "x" * (100 + more - 10)})
    assert len(body) == 100 + more
    one = saying(ANSWER.pack(TEXTS, len(body), 0) + body)
    if more:
        with pytest.raises(InvalidRequest, match="ends its decoder"):
            await one.texts(b"file")
    else:
        assert await one.texts(b"file") == {"prompt": "x" * 90}
    assert one.deaths == more
    await one.close()


@pytest.mark.parametrize("head", [(TEXTS, 0, 0), (PICTURE, 1, 1), (REFUSED, 0, 0), (TEXTS, 1, 0)])
async def test_texts_of_a_decoder_that_was_taken_over_are_not_believed(head: tuple[int, int, int]) -> None:
    one = saying(ANSWER.pack(*head) + b"\xff" * 64)
    with pytest.raises(InvalidRequest, match="ends its decoder, or takes too long to decode") as refused:
        await one.texts(b"file", field="image.blob_id")
    assert refused.value.reason is ErrorReason.BAD_IMAGE
    assert [violation.field for violation in refused.value.violations] == ["image.blob_id"]
    assert one.deaths == 1


@pytest.mark.parametrize(("size", "refuses"), [((2, 3), False), ((1, 6), False), ((1, 7), True), ((0, 6), True)])
async def test_a_picture_has_at_most_the_pixels_that_were_asked_for(size: tuple[int, int], refuses: bool) -> None:
    one = saying(ANSWER.pack(PICTURE, *size) + bytes(range(64)))
    if refuses:
        await refusal(one, b"file", 6)
    else:
        found = await one.decode(b"file", max_pixels=6)
        assert found.tolist() == np.arange(18).reshape(*size, 3).tolist()
    assert one.deaths == refuses
    await one.close()


async def test_a_process_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.imaging.decoder_process.ANSWER_S", 0.05)
    one = saying(b"")
    assert "takes too long" in (await refusal(one, b"file")).message
    assert one.deaths == 1


async def test_a_process_that_is_never_ready_is_a_fault_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.imaging.decoder_process._START_S", 0.05)
    with pytest.raises(InternalError, match="the process that decodes pictures did not start"):
        await PictureDecoder([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]).decode(b"", max_pixels=1)


async def test_a_caller_who_leaves_during_the_start_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    create, begun = asyncio.create_subprocess_exec, asyncio.get_running_loop().create_future()

    async def creating(*command: str, **more: Any) -> asyncio.subprocess.Process:
        process = await create(*command, **more)
        begun.set_result(process)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", creating)
    decoder = PictureDecoder([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"])
    left = asyncio.create_task(decoder.decode(b"", max_pixels=1))
    process = await begun
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert process.returncode is not None


async def test_a_process_is_started_twice_at_most(tmp_path: Path) -> None:
    code = f"import os; os.close(os.open({str(tmp_path / 'p')!r} + str(os.getpid()), os.O_CREAT)); os.abort()"
    with pytest.raises(InternalError):
        await PictureDecoder([sys.executable, "-S", "-c", code]).decode(b"", max_pixels=1)
    assert len(os.listdir(tmp_path)) == 2


async def test_a_closed_decoder_ends_its_process_and_starts_another_for_the_next_picture(
    decoder: PictureDecoder,
) -> None:
    first = await child_of(decoder)
    await decoder.close()
    assert not first.is_running()
    second = await child_of(decoder)
    assert second.pid != first.pid
    assert (await child_of(decoder)).pid == second.pid
    assert decoder.deaths == 0


async def test_the_process_computes_in_one_thread_and_gets_what_python_needs(
    decoder: PictureDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = (await child_of(decoder)).environ()
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["LANG"] == "C.UTF-8"
    assert environment["PATH"] == os.environ["PATH"]
