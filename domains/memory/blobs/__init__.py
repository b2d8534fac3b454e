"""Blobs: bytes too large for a message. `store` is the door; `blob` the value."""
