"""Keeps adapters in host memory, each content once, and makes the adapters of jobs from them."""

from collections import OrderedDict
from collections.abc import Collection, Sequence

import torch

from domains.errors import FailedPrecondition
from domains.inference.on_device.adapters.adapter_file import AdapterFile, read_adapter
from domains.inference.on_device.adapters.beside import NO_ADAPTERS, Adapters, hook, words_of
from domains.inference.on_device.adapters.job_adapters import Asked, Chosen, ChosenRegion, adapters_of
from domains.inference.on_device.adapters.learned_words import hook_reader
from domains.inference.on_device.adapters.lora_fit import Fitted, fit
from domains.inference.on_device.adapters.words_fit import Named, fit_words
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel

_MOST_BYTES = 2 * 1024**3
"""Ten large LoRAs of SDXL."""


class AdapterPool:
    """The most recently used adapters of one worker."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        """Drops the oldest beyond the limit, but never the last one that was asked for."""
        self._files: OrderedDict[str, AdapterFile] = OrderedDict()
        self._fitted: dict[tuple[str, str], tuple[Fitted, ...]] = {}
        """By hash of the LoRA and of the model: where its tensors belong."""
        self._own_bytes: dict[tuple[str, str], int] = {}
        """By the same: bytes of what was computed, and is no part of the file."""
        self._most_bytes = most_bytes

    def adapters(self, asked: Asked, loaded: OnDeviceModel) -> Adapters:
        """The adapters of a job. Raises MODEL_INCOMPATIBLE, and what reading a file raises; INVALID_FIELD for a learned word
        that the model knows already."""
        if not asked.loras and not asked.words and not asked.regions:
            return NO_ADAPTERS
        for one, model in (*asked.loras, *asked.words, *(lora for region in asked.regions for lora in region.loras)):
            _check_content(one.model_sha256, model)
        chosen = [Chosen(lora, self._fit(model, loaded)) for lora, model in asked.loras]
        regions = [
            ChosenRegion(one.steps, one.map, [Chosen(lora, self._fit(model, loaded)) for lora, model in one.loras])
            for one in asked.regions
        ]
        with torch.inference_mode(mode=False), torch.no_grad():
            words = fit_words([Named(word, self._file(model)) for word, model in asked.words], loaded)
            made = adapters_of(chosen, asked, words, loaded, regions)
        hook(made.modules())
        for embedding in words:
            hook_reader(embedding, words_of)
        return made

    def _fit(self, model: Model, loaded: OnDeviceModel) -> Sequence[Fitted]:
        file = self._file(model)
        key = (file.sha256, loaded.model.sha256)
        if key not in self._fitted:
            self._fitted[key] = fit(file, loaded)
            self._own_bytes[key] = _beside(self._fitted[key], file)
        return self._fitted[key]

    def _file(self, model: Model) -> AdapterFile:
        """The adapter's file, read once for all models with its content."""
        sha256 = model.files[0].sha256
        file = self._files.get(sha256)
        if file is None:
            file = self._files[sha256] = read_adapter(model)
            while len(self._files) > 1 and self.held_bytes() > self._most_bytes:
                self._forget(next(iter(self._files)))
        self._files.move_to_end(sha256)
        return file

    def held_bytes(self) -> int:
        """Bytes of host memory that the files take, and what was computed from them to fit models."""
        return sum(file.size_bytes for file in self._files.values()) + sum(self._own_bytes.values())

    def keep_models(self, contents: Collection[str]) -> None:
        """Drop what fits other models than these (their hashes). The files stay."""
        for key in [key for key in self._fitted if key[1] not in contents]:
            self._drop(key)

    def clear(self) -> None:
        """Drop all files. Jobs keep what they use."""
        self._files.clear()
        self._fitted.clear()
        self._own_bytes.clear()

    def _forget(self, sha256: str) -> None:
        del self._files[sha256]
        for key in [key for key in self._fitted if key[0] == sha256]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        del self._fitted[key], self._own_bytes[key]


def _beside(fitted: Sequence[Fitted], file: AdapterFile) -> int:
    """Bytes of the fitted tensors that are none of the file's own. Views share their storage."""
    own = {tensor.untyped_storage().data_ptr() for tensor in file.tensors.values()}
    storages = [tensor.untyped_storage() for one in fitted for tensor in one.factors.tensors()]
    others = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.data_ptr() not in own}
    return sum(others.values())


def _check_content(sha256: str, model: Model) -> None:
    """Raise ILLEGAL_STATE if the file is another one than that of the request."""
    if sha256 != model.files[0].sha256:
        message = f"the file of {model.id} has changed since the request came; send the request again"
        raise FailedPrecondition(message, model_id=model.id)
