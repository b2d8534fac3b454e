"""The page that shows the table of promises to its readers: docs/promises.md."""

import re
from collections import Counter
from collections.abc import Iterator

from tools.promises.named_tests import ROOT, needs_gpu
from tools.promises.table import Promise, State

PAGE = ROOT / "docs" / "promises.md"
AREAS = {
    "ALL": "All domains",
    "DEV": "Device",
    "MEM": "Memory",
    "MOD": "Model",
    "PRO": "Processing",
    "INF": "Inference",
    "POS": "Postprocessing",
    "DEP": "Dependencies of the domains",
    "STA": "State",
    "ERR": "Errors and recovery",
    "PER": "Performance",
    "TST": "Tests",
}
"""The prefix of the ids, and the heading of its rows."""
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Between two words of a name in C#."""
INTRODUCTION = """\
# What is proven

Each row is a promise of this server, with the tests that decide it. `make test` runs them; those marked GPU run on a machine
with a CUDA device, with `pytest -m gpu`; a bench measures against a fixed limit or a named peer (`python -m bench.NAME`).

* **proven**: the named tests decide the promise.
* **in part**: they decide some of it; the row says what is missing.
* **untested**: it is built, and no test decides it.
* **by review**: it is about design, and no test can decide it.
* **not built**: the methods answer UNIMPLEMENTED, and fields are refused by name.

`python -m tools.promises` writes this page from `tests/promises.toml`; a test holds that both agree and every test exists.
"""


HEADINGS = {
    State.PROVEN: "Proven",
    State.PARTLY: "Proven in part",
    State.UNTESTED: "Built, and decided by no test",
    State.REVIEWED: "Decided by review",
    State.NOT_BUILT: "Not built yet",
}


def page(rows: dict[str, Promise]) -> str:
    """Renders the whole page as Markdown."""
    return "\n".join([INTRODUCTION, *_counts(rows), *(line for prefix in AREAS for line in _area(rows, prefix))])


def _counts(rows: dict[str, Promise]) -> Iterator[str]:
    yield f"| | {' | '.join(State)} | all |"
    yield f"|---|{'---:|' * (len(State) + 1)}"
    for prefix, title in AREAS.items():
        yield f"| [{title}](#{_anchor(title)}) | {_numbers(_of(rows, prefix))} |"
    yield f"| **All** | {_numbers(rows)} |"
    yield ""


def _numbers(rows: dict[str, Promise]) -> str:
    found = Counter(row.state for row in rows.values())
    return " | ".join(str(found[state]) for state in State) + f" | {len(rows)}"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _of(rows: dict[str, Promise], prefix: str) -> dict[str, Promise]:
    return {key: row for key, row in rows.items() if key.startswith(f"{prefix}-")}


def _area(rows: dict[str, Promise], prefix: str) -> Iterator[str]:
    yield f"## {AREAS[prefix]}\n"
    for state, heading in HEADINGS.items():
        chosen = {key: row for key, row in _of(rows, prefix).items() if row.state is state}
        if chosen:
            yield f"### {heading}\n"
            yield from (line for key, row in chosen.items() for line in _row(key, row))
            yield ""


def _row(key: str, row: Promise) -> Iterator[str]:
    yield f"* **{key}** {row.promise}"
    proofs = [*map(_test, row.tests), *(f"bench [{name}](../bench/{name}.py)" for name in row.benches)]
    if proofs:
        yield f"  * Proof: {'; '.join(proofs)}."
    for word, text in (("Missing", row.missing), ("GPU only", row.gpu_only), ("Note", row.note)):
        if text:
            yield f"  * {word}: {text}"


def _test(name: str) -> str:
    """Shows a test as the sentence that its name is, with a link to its file."""
    file, _, function = name.partition("::")
    csharp = file.endswith(".cs")
    words = _WORD_START.sub(" ", function).lower() if csharp else function.removeprefix("test_").replace("_", " ")
    return f"[{words}](../{file}){' (GPU)' if needs_gpu(name) else ' (C#)' if csharp else ''}"
