"""Preview pictures of a running job: into a folder, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.failure import CliError

if TYPE_CHECKING:
    from deviceops.inference.v1.inference_service_pb2 import GenerateResponse
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse

_EXTENSIONS = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


class PreviewFolder:
    """Writes `1-0005.jpg` for the preview of the first picture after step 5."""

    def __init__(self, folder: Path) -> None:
        """The folder exists already."""
        self.folder = folder
        self.count = 0

    def __call__(self, message: GenerateResponse | WatchJobResponse) -> None:
        """Take one message of a job; those without a preview are let pass. Raises `CliError` if the disk refuses."""
        if message.event.WhichOneof("kind") != "preview":
            return
        preview = message.event.preview
        name = f"{preview.image_index + 1}-{preview.step:04d}{_EXTENSIONS.get(preview.media_type, '.img')}"
        try:
            (self.folder / name).write_bytes(preview.data)
        except OSError as error:
            raise CliError(f"cannot write the preview {self.folder / name}: {error.strerror}") from error
        self.count += 1
