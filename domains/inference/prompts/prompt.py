"""A prompt with everything that decides how text encoders read it."""

import msgspec

from domains.inference.prompts.reading import LongPrompt, Reading, Syntax, read


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt of a request, as a value that encodings are kept by."""

    texts: tuple[str, ...]
    """The text for each text encoder; an empty or missing one is the first."""
    syntax: Syntax = Syntax.PLAIN
    long: LongPrompt = LongPrompt.TRUNCATE
    clip_skip: int = 0
    """How many of a CLIP's last layers are left out, counted from the one that the family takes."""

    @property
    def text(self) -> str:
        """The text for the first encoder."""
        return self.texts[0]

    def text_of(self, encoder: int) -> str:
        """The text for an encoder, counted from 0."""
        return (self.texts[encoder] if encoder < len(self.texts) else "") or self.text

    def reading(self, encoder: int = 0) -> Reading:
        """The text for an encoder, read."""
        return read(self.text_of(encoder), self.syntax)

    @property
    def blank(self) -> bool:
        """Whether no encoder reads a word."""
        return all(self.reading(encoder).blank for encoder in range(len(self.texts)))


def plain(text: str) -> Prompt:
    """A prompt that all encoders read as it stands."""
    return Prompt(texts=(text,))


class FieldPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt with the fields of the generation that its texts come from."""

    fields: tuple[str, ...]
    """The path of the text for each encoder: `prompt`, `second_prompt`, `blended_prompts[0].prompt`. The last one is that of
    all further encoders."""
    prompt: Prompt

    def field_of(self, encoder: int) -> str:
        """The path of the text for an encoder, counted from 0."""
        return self.fields[min(encoder, len(self.fields) - 1)]
