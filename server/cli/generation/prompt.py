"""`deviceops prompt`: how a model's text encoders read a prompt, without making a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.failure import must_be_text
from server.cli.console.printing import emit, notice, print_json
from server.cli.console.tables import print_table

if TYPE_CHECKING:
    from deviceops.inference.v1.conditioning_preview_pb2 import PromptReading

SyntaxOption = Annotated[
    Literal["plain", "a1111", "comfyui"] | None, typer.Option(help="How brackets are read. [default: as plain text]")
]
LongOption = Annotated[
    Literal["truncate", "chunk", "refuse"] | None,
    typer.Option(help="What to do with a prompt that is longer than the window. [default: truncate]"),
]
_HEADS = ("window", "weight", "words", "tokens")


def prompt(
    text: Annotated[str, typer.Argument(help="What to draw.", metavar="PROMPT")],
    negative: Annotated[str, typer.Option(help="What not to draw.")] = "",
    guidance: Annotated[float | None, typer.Option(help="A negative prompt is read above 1.")] = None,
    syntax: SyntaxOption = None,
    long_prompt: LongOption = None,
    model: Annotated[str, typer.Option(help="A model's id. [default: the server's default model]")] = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Tell the words, weights, tokens and windows that each text encoder of a model sees."""
    from deviceops.inference.v1 import generation_pb2, inference_service_pb2

    must_be_text(PROMPT=text, **{"--negative": negative})
    with connect(address) as connection:
        request = inference_service_pb2.PreviewConditioningRequest(
            generation=generation_pb2.Generation(
                prompt=text,
                negative_prompt=negative,
                model_id=ids.model(connection, model) if model else "",
                prompt_syntax=generation_pb2.PromptSyntax.Value(f"PROMPT_SYNTAX_{(syntax or 'unspecified').upper()}"),
                long_prompt=generation_pb2.LongPrompt.Value(f"LONG_PROMPT_{(long_prompt or 'unspecified').upper()}"),
            )
        )
        if guidance is not None:
            request.generation.sampling.guidance_scale = guidance
        answer = connection.inference.PreviewConditioning(request)
    if json:
        return print_json(answer)
    for place, reading in enumerate(answer.prompts):
        emit(("\n" if place else "") + _head(reading))
        print_table(_HEADS, _rows(reading), "No words.")
    for finding in answer.findings:
        notice(f"{finding.field}: {finding.message}")
    return None


def _head(reading: PromptReading) -> str:
    cut = f", {reading.truncated_token_count} left out" if reading.truncated_token_count else ""
    return f"{reading.field} as {reading.encoder} reads it: {reading.token_count} tokens{cut}"


def _rows(reading: PromptReading) -> Iterator[tuple[str, ...]]:
    for one in reading.segments:
        window = "left out" if one.truncated else str(one.window)
        yield window, f"{one.weight:g}", one.text.strip(), " ".join(one.tokens)
