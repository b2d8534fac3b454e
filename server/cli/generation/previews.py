"""Writes previews of a running job into a folder, one file each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import notice
from server.cli.generation.files import make_folder

if TYPE_CHECKING:
    from deviceops.inference.v1.inference_service_pb2 import GenerateResponse
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse

_EXTENSIONS = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


_NAME = re.compile(r"\d+-\d{4,}\.(jpg|png|webp|img)")


class PreviewFolder:
    """Writes `1-0005.jpg` for the preview of the first picture after step 5."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists."""
        self.folder = folder
        self._failed = False

    def __call__(self, message: GenerateResponse | WatchJobResponse) -> None:
        """Write the preview of a message, if it has one. An error of the disk is printed once and does not end the job."""
        if message.event.WhichOneof("kind") != "preview" or self._failed:
            return
        preview = message.event.preview
        name = f"{preview.image_index + 1}-{preview.step:04d}{_EXTENSIONS.get(preview.media_type, '.img')}"
        try:
            (self.folder / name).write_bytes(preview.data)
        except OSError as error:
            self._failed = True
            notice(f"No more previews: cannot write {self.folder / name}: {error.strerror}")


def preview_folder(folder: Path, force: bool) -> Path:
    """The folder, made if missing. Raises `CliError` (usage) for a file, and without `force` for a folder with previews."""
    if folder.exists() and not folder.is_dir():
        raise CliError(f"--previews {folder} is a file; name a folder", USAGE)
    make_folder(folder)
    if not force and any(_NAME.fullmatch(one.name) for one in folder.iterdir()):
        raise CliError(f"--previews {folder} has previews already; name another folder, or use --force", USAGE)
    return folder
