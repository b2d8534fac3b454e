"""The version of this server, asked once."""

import importlib.metadata

SERVER_VERSION = importlib.metadata.version("deviceops")
