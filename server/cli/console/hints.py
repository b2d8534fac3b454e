"""Hints about the prompt, for models that list what they can draw."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from server.cli.calls.connection import Connection
from server.cli.console.printing import notice

_TIMEOUT_S = 2.0


def known_prompts(connection: Connection, model_id: str) -> Sequence[str]:
    """Prompts that a model (empty: the default one) lists as known. Empty: it lists none, or the server cannot say yet."""
    import grpc

    from deviceops.inference.v1 import inference_service_pb2

    request = inference_service_pb2.GetInferenceCapabilitiesRequest(model_id=model_id, include_known_prompts=True)
    with contextlib.suppress(grpc.RpcError):
        answer = connection.inference.GetInferenceCapabilities(request, timeout=_TIMEOUT_S)
        for model in answer.models:
            if model.model_id == model_id or (not model_id and model.is_default):
                return tuple(model.known_prompts)
    return ()


def hint(prompt: str, known: Sequence[str]) -> None:
    """Print the nearest known prompts on stderr if the prompt is none of them."""
    if not known:
        return
    from domains.model.suggest import knows, suggest

    if knows(prompt, known):
        return
    near = suggest(prompt, known, n=3)
    if near:
        notice("Hint: this model knows other names better: " + ", ".join(f"“{name}”" for name in near))
