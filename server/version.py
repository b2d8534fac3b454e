"""The version of this server, read once."""

import importlib.metadata

SERVER_VERSION = importlib.metadata.version("deviceops")
