"""Texts in a file besides its pixels."""

import msgspec


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The texts of one file. None: it has none of this kind."""

    manifest: str | None = None
    """Data to make the picture again, for `read_manifest`."""
    parameters: str | None = None
    """The same data in A1111's format, where A1111 and similar tools look for it."""
    xmp: bytes | None = None
    """An XMP packet (ISO 16684-1), UTF-8."""

    @property
    def texts(self) -> bool:
        """Whether there is a manifest or a parameters text."""
        return self.manifest is not None or self.parameters is not None
