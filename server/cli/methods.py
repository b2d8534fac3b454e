"""What the server says to do, as commands: its texts name methods of the contract."""

import re

_COMMANDS = {
    "CancelJob": "cancel",
    "CheckDeviceHealth": "device check",
    "DeleteBlob": "blobs rm",
    "ListModels": "models",
    "LoadModel": "models load",
    "ReclaimMemory": "memory reclaim",
    "ResetDevice": "device reset",
    "ScanModels": "models --scan",
    "SetMemoryBudget": "memory budget",
    "UnloadModel": "models unload",
    "UpdateDevice": "device enable",
}
"""The command that calls a method of the contract."""
_METHOD = re.compile(rf"\b({'|'.join(_COMMANDS)})\b(?: for (?P<id>[\w:.@-]*\w))?(?:, level (?P<level>[A-Z]+))?")


def in_commands(text: str) -> str:
    """The text with commands in place of methods: `ResetDevice for sim-3` is `deviceops device reset sim-3`."""

    def command(found: re.Match[str]) -> str:
        level = f"--level {found['level'].lower()}" if found["level"] else ""
        return f"`{' '.join(filter(None, ('deviceops', _COMMANDS[found[1]], found['id'], level)))}`"

    return _METHOD.sub(command, text)
