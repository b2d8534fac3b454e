"""Replaces methods of the contract in the server's texts by the commands that call them."""

import re

_COMMANDS = {
    "CancelJob": "cancel",
    "CheckDeviceHealth": "device check",
    "ConfirmClock": "clock confirm",
    "DeleteBlob": "blobs rm",
    "InspectModel": "models inspect",
    "ListLoadedModels": "models loaded",
    "ListModels": "models",
    "LoadModel": "models load",
    "OpenSession": "sessions open",
    "PauseJob": "job pause",
    "ReclaimMemory": "memory reclaim",
    "ResetDevice": "device reset",
    "ResumeJob": "job resume",
    "ScanModels": "models --scan",
    "SetMemoryBudget": "memory budget",
    "UnloadModel": "models unload",
    "UpdateDevice": "device enable",
    "UpdateLoadedModel": "models keep",
}
"""By method: the command that calls it."""
_METHOD = re.compile(rf"\b({'|'.join(_COMMANDS)})\b(?: for (?P<id>[\w:.@-]*\w))?(?:, level (?P<level>[A-Z]+))?")


def in_commands(text: str) -> str:
    """The text with methods replaced by commands: `ResetDevice for sim-3` becomes `deviceops device reset sim-3`."""

    def command(found: re.Match[str]) -> str:
        level = f"--level {found['level'].lower()}" if found["level"] else ""
        return f"`{' '.join(filter(None, ('deviceops', _COMMANDS[found[1]], found['id'], level)))}`"

    return _METHOD.sub(command, text)
