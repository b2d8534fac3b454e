"""Files of models are opened where they were judged: each place of the code that opens a file is known."""

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import domains
from domains.model.regular_file import read_regular

ROOT = Path(domains.__file__).parent
OPENS = {
    "open",
    "fdopen",
    "read_text",
    "read_bytes",
    "from_pretrained",
    "load_file",
    "safe_open",
    "copyfile",
    "copytree",
    "mmap",
}
KNOWN = {
    "model/regular_file.py": "judges each folder and the file",
    "model/on_device/tokenizer.py": "reads copies in a folder of its own",
    "model/on_device/file_map.py": "maps a descriptor",
    "model/on_device/leased_map.py": "maps a descriptor, through /proc/self/fd",
    "model/page_cache.py": "maps a descriptor",
    "model/on_device/conversion_files.py": "makes new files",
    "model/on_device/rewrite.py": "makes new files",
    "model/publish_note.py": "writes and reads in the state folder",
    "inference/on_device/kept_bytes.py": "reads the server's own files",
    "inference/on_device/checkpoint.py": "looks for the pass in the server's own file",
}


def opening(folder: str) -> Iterator[str]:
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in OPENS:
                yield file.relative_to(ROOT).as_posix()


def test_no_other_code_opens_a_file() -> None:
    assert {*opening("model"), *opening("inference")} == {*KNOWN}


def test_a_file_is_read_up_to_a_limit_and_neither_a_link_nor_a_pipe(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    (folder / "file").write_bytes(b"12345")
    assert read_regular(folder / "file", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes") as told:
        read_regular(folder / "file", 4)
    assert told.value.errno == errno.EFBIG
    (folder / "link").symlink_to(folder / "file")
    os.mkfifo(folder / "pipe")
    for name, why in (("link", "symbolic"), ("pipe", "no regular file")):
        with pytest.raises(OSError, match=why):
            read_regular(folder / name, 5)
