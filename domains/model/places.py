"""Which files of a folder are models: single files, the files of one component together, pickles that are refused."""

import os
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from domains.model.component_folder import is_pickle
from domains.model.weights_model import SUFFIX

_TOGETHER = re.compile(
    r"(?:model|diffusion_pytorch_model|adapter_model|pytorch_lora_weights)(?:\.\w+)?(?:-\d{5}-of-\d{5})?(?:\.\w+)?\.safetensors"
)
"""Names that diffusers, transformers and peft give to the weights of a folder."""
_SHARD = re.compile(r".+-\d{5}-of-\d{5}(?:\.\w+)?\.safetensors")
_CONFIGS = {"config.json", "adapter_config.json"}
_INDEX = ".safetensors.index."


class Form(StrEnum):
    """In which form a model lies at a place."""

    FOLDER = "folder"
    """A folder with an index of components."""
    COMPONENT = "component"
    """A folder with the weights of one component."""
    FILE = "file"
    PICKLE = "pickle"
    """A file that is refused."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model lies."""

    path: Path
    """Real path of the folder or file."""
    form: Form
    name: str = ""
    """Name of a file as its folder lists it; a link may have another name than its target."""


def forms(files: Sequence[str]) -> Iterator[tuple[Form, str]]:
    """The models among the names in one folder without an index of components; the name is empty for the folder itself."""
    weights = [name for name in files if name.endswith(SUFFIX)]
    described = bool(_CONFIGS & set(files)) or any(_INDEX in name for name in files)
    together = {name for name in weights if _SHARD.fullmatch(name) or (described and _TOGETHER.fullmatch(name))}
    if together:
        yield Form.COMPONENT, ""
    for name in sorted(set(weights) - together):
        yield Form.FILE, name
    for name in sorted(files):
        if is_pickle(name) and not _converted(name, weights):
            yield Form.PICKLE, name


def _converted(pickle: str, weights: Sequence[str]) -> bool:
    """Whether the same weights lie beside it as safetensors. `.bin` is the folder's own, under another name."""
    stem = os.path.splitext(pickle)[0]
    return f"{stem}{SUFFIX}" in weights or (pickle.endswith(".bin") and bool(weights))
