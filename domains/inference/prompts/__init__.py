"""Reads the text of prompts: which words weigh what, and where a new window of tokens begins. Free of torch.

    reading = read("a (red:1.3) apple BREAK on a table", Syntax.A1111)
    reading.parts        # two parts; the first has the segments "a ", "red" (1.3) and " apple"

`prompt` holds all that decides how encoders read a prompt; `a1111_brackets` and `comfyui_brackets` know the two
syntaxes, `step_edits` and `composition` what A1111 changes by step and joins by AND; `segment` is what they find;
`windows` lays tokens out for a text encoder, and `shown` tells what it reads.
"""

from domains.inference.prompts.composition import composed
from domains.inference.prompts.prompt import FieldPrompt, Prompt, plain
from domains.inference.prompts.reading import LongPrompt, Reading, Segment, Syntax, read
from domains.inference.prompts.shown import Piece, PromptReading, PromptSegment, segments_of
from domains.inference.prompts.step_edits import Schedule, TooManyEdits, edits_of, scheduled
from domains.inference.prompts.windows import Token, Windows, laid_out

__all__ = [
    "FieldPrompt",
    "LongPrompt",
    "Piece",
    "Prompt",
    "PromptReading",
    "PromptSegment",
    "Reading",
    "Schedule",
    "Segment",
    "Syntax",
    "Token",
    "TooManyEdits",
    "Windows",
    "composed",
    "edits_of",
    "laid_out",
    "plain",
    "read",
    "scheduled",
    "segments_of",
]
