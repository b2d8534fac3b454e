"""Summarises a job in one line, for people and lists."""

from domains.processing.jobs.kinds import Work

MAX_CHARACTERS = 120
_CUT = "…"


def summary(work: Work, *, prompts: bool = True) -> str:
    """At most `MAX_CHARACTERS`, on one line. Without `prompts`, empty for work that has one."""
    if work.has_prompt and not prompts:
        return ""
    return shortened(work.summary, MAX_CHARACTERS)


def shortened(text: str, limit: int) -> str:
    """The first words of a text on one line, without control characters; a cut between words is marked."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(line) <= limit:
        return line
    kept = line[: limit - len(_CUT) + 1].rpartition(" ")[0] or line[: limit - len(_CUT)]
    return kept.rstrip(" ,;:") + _CUT
