"""Finds settings with which a server cannot start, before anything is opened."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from domains.descriptors import none_left

if TYPE_CHECKING:
    from server.settings import Settings

_SOCKET_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path of a Unix socket: `sun_path` less its end (unix(7))."""
_STATE_BYTES = 480
"""Longest path of the state folder: SQLite's unix VFS opens paths of up to 512 bytes (MAX_PATHNAME) with file names."""

NO_THREADS = "the system lets this user start no more threads; raise its limit (ulimit -u, TasksMax, pids.max)"
_THREADS = 32
"""More threads than a server starts until it serves. gRPC's core crashes where it cannot start one of its own."""
_DESCRIPTORS = 64
"""More descriptors than a server has opened when it serves (24 and its models' files). gRPC's core ends the process where it
cannot open one of its own."""


def spare_threads() -> bool:
    """Whether the system lets this process start the threads that a server needs."""
    go, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(_THREADS):
            thread = threading.Thread(target=go.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        go.set()
        for thread in started:
            thread.join()
    return True


def no_descriptors() -> str:
    """Why a server gets too few file descriptors. Empty: it gets enough."""
    opened = list[int]()
    try:
        while len(opened) < _DESCRIPTORS:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        known = none_left(error)
        return known.message if known else ""
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return ""


def start_faults(settings: Settings) -> list[str]:
    """One line for each setting that cannot work on this machine now. Empty: the server can start."""
    checks = (
        _host(settings.host),
        _state(settings.state),
        _socket(settings.socket),
        _default_model(settings),
        _apart(settings),
    )
    # Makes the folder only if the server can start otherwise.
    return [fault for check in checks for fault in check] or list(made(settings.state))


def _host(host: str) -> Iterator[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        yield f"host: {host} cannot be resolved: {getattr(error, 'strerror', None) or error}"
        return
    if not any(map(_is_ours, found)):
        yield f"host: {host} is no address of this machine; 127.0.0.1 is for this machine alone, 0.0.0.0 for all networks"


def _is_ours(found: tuple[int, int, int, str, tuple[object, ...]]) -> bool:
    family, kind, protocol, _, address = found
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _state(folder: Path) -> Iterator[str]:
    if len(os.fsencode(folder.absolute())) > _STATE_BYTES:
        yield f"state: the path has more than {_STATE_BYTES} bytes; choose a shorter one with --state"
        return
    for place in (folder, *folder.absolute().parents):
        try:
            mode = place.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            # If a parent is a file, the loop reaches it and reports it.
            continue
        except OSError as error:
            yield f"state: {place}: {error.strerror}; choose another folder with --state"
            return
        if not stat.S_ISDIR(mode):
            yield f"state: {place} is a file, not a folder; choose another folder with --state"
        elif not os.access(place, os.W_OK | os.X_OK):
            yield f"state: {place} cannot be written to by this user; choose another folder with --state"
        return


def _apart(settings: Settings) -> Iterator[str]:
    """The state folder and the roots must not contain each other: callers could read other jobs' pictures as blobs."""
    state = settings.state.resolve()
    for name, roots in (("blob_roots", settings.blob_roots), ("model_roots", settings.model_roots)):
        for root in roots:
            if state.is_relative_to(root):
                yield f"{name}: the root {root} contains the state folder {state}; choose another root, or another --state"
            elif root.is_relative_to(state):
                yield f"{name}: the root {root} lies inside the state folder {state}; choose another root"


def made(folder: Path) -> Iterator[str]:
    """Make the folder: some file systems refuse what the permissions allow, and only the attempt shows it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        yield f"state: {folder} cannot be made: {error.strerror}; choose another folder with --state"


def _socket(path: Path | None) -> Iterator[str]:
    if path is None:
        return
    whole = path.absolute()
    if len(os.fsencode(whole)) > _SOCKET_BYTES:
        yield f"socket: {path} has more than {_SOCKET_BYTES} bytes, which is the longest path of a socket"
    elif not whole.parent.is_dir():
        yield f"socket: there is no folder {whole.parent}; make it, or choose another --socket"
    elif whole.is_dir() or (whole.exists() and not whole.is_socket()):
        yield f"socket: {path} is there and no socket; remove it, or choose another --socket"
    elif not os.access(whole.parent, os.W_OK | os.X_OK):
        yield f"socket: the folder {whole.parent} cannot be written to by this user; choose another --socket"


def _default_model(settings: Settings) -> Iterator[str]:
    """A fault if the default model is not found. Reads only folder names, and none for an embedded model."""
    from domains.model.catalogue import EMBEDDED

    embedded = sorted(one.name for one in EMBEDDED.iterdir() if (one / "model_index.json").is_file())
    name = settings.default_model
    if name in embedded or any(name == one or name.startswith(f"{one}-") for one in _ids_in(settings.model_roots)):
        return
    where = ", ".join(map(str, settings.model_roots)) or "no --model-root is given"
    yield f"default_model: there is no model {name}: {', '.join(embedded)} comes along; looked in: {where}"


def _ids_in(folders: list[Path]) -> Iterator[str]:
    """Ids of the models in the roots, derived from folder names; a repeated name gets a number."""
    from domains.model.naming import display_name, free_id_of
    from domains.model.roots import Roots
    from domains.model.walk import model_folders

    roots = Roots(folders)
    for folder in model_folders(roots, roots.folders, lambda path, reason, message: None):
        yield free_id_of(display_name(folder), frozenset())
