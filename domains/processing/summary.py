"""What a job is about, in one line for people and lists."""

from domains.memory.blobs.transfer_request import NewBlob, TransferRequest
from domains.processing.job import (
    BenchmarkWork,
    GenerateWork,
    LoadWork,
    ResetWork,
    ScanWork,
    TransferWork,
    UnreadableWork,
    Work,
)

MAX_CHARACTERS = 120
_CUT = "…"


def summary(work: Work, *, prompts: bool = True) -> str:
    """At most `MAX_CHARACTERS`, on one line. Without `prompts`, empty for work that has one."""
    if isinstance(work, GenerateWork | UnreadableWork) and not prompts:
        return ""
    return shortened(_words(work), MAX_CHARACTERS)


def shortened(text: str, limit: int) -> str:
    """The first words of a text on one line, without control characters; a cut at a word is marked."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(line) <= limit:
        return line
    kept = line[: limit - len(_CUT) + 1].rpartition(" ")[0] or line[: limit - len(_CUT)]
    return kept.rstrip(" ,;:") + _CUT


def _words(work: Work) -> str:
    match work:
        case GenerateWork():
            return work.asked.prompt
        case LoadWork():
            return f"load {work.model_id}"
        case ScanWork():
            return f"scan {', '.join(work.roots) or 'all model roots'}"
        case BenchmarkWork():
            return f"benchmark {work.device_id}: {', '.join(work.suites)}"
        case ResetWork():
            return f"reset {work.device_id}"
        case TransferWork():
            return _transfer(work.request)
        case UnreadableWork():
            return work.summary


def _transfer(request: TransferRequest) -> str:
    verb = "move" if request.move else "copy"
    place = request.destination
    if not isinstance(place, NewBlob):
        return f"{verb} {request.blob_id} into {place.blob_id}"
    return " ".join([verb, request.blob_id, "to", str(place.tier).replace("_", " "), *filter(None, [place.device_id])])
