"""The versions of this server and of its libraries, read once: each look opens files."""

import importlib.metadata

SERVER_VERSION = importlib.metadata.version("deviceops")
LIBRARIES = tuple(f"{name} {importlib.metadata.version(name)}" for name in ("grpcio", "protobuf", "msgspec"))
