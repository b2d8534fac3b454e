"""Reads the config of a model's component: its file, and what its tensors say where the file is a shipped one."""

import json
from typing import Any

from domains.model.json_file import read_object
from domains.model.model import Model
from domains.model.weight_file import open_judged

_WITH_SETTINGS = ("config.json", "scheduler_config.json")


def read_config(model: Model, component: str, name: str) -> dict[str, Any]:
    """A component's JSON file. Raises COMPONENT_MISSING or MODEL_CORRUPT, naming it."""
    path = f"{component}/{name}"
    with open_judged(model, path) as file:
        found = read_object(file, path, component=component, file=name)
    settings = next((part.settings for part in model.components if part.id == component), "")
    return found | json.loads(settings) if settings and name in _WITH_SETTINGS else found
