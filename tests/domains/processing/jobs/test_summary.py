"""Summaries: one short line, whatever the work and however long its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.device.benchmark import Suite
from domains.inference.generation import Generation
from domains.inference.resolution.resolve import resolve
from domains.memory.blobs.blob import BlobTier
from domains.memory.blobs.transfer_request import ExistingBlob, NewBlob, TransferRequest
from domains.model.conversion import Conversion
from domains.model.validation import Depth, Validation
from domains.processing.jobs.kinds import (
    BenchmarkWork,
    ConvertWork,
    GenerateWork,
    LoadWork,
    ResetWork,
    ScanWork,
    TransferWork,
    ValidateWork,
    Work,
)
from domains.processing.jobs.summary import MAX_CHARACTERS, shortened, summary
from tests.domains.inference.on_device.requests import embedded_model


def picture(prompt: str) -> GenerateWork:
    asked = Generation(prompt=prompt)
    return GenerateWork(asked=asked, resolved=resolve(asked, embedded_model()))


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (picture("a red\n apple\x1b[31m"), "a red apple [31m"),
        (LoadWork(model_id="emoji-sd"), "load emoji-sd"),
        (ScanWork(), "scan all model roots"),
        (ScanWork(roots=("/srv/models", "/data")), "scan /srv/models, /data"),
        (BenchmarkWork(device_id="cpu", suites=(Suite.MEMORY, Suite.COMPUTE)), "benchmark cpu: memory, compute"),
        (ResetWork(device_id="cpu"), "reset cpu"),
        (ValidateWork(asked=Validation(model_id="m", depth=Depth.VALUES)), "validate m: values"),
        (ConvertWork(asked=Conversion(model_id="m", precision="float16", destination="/x")), "convert m: float16"),
        (ConvertWork(asked=Conversion(model_id="m", destination="/x")), "convert m: a copy"),
        (
            TransferWork(request=TransferRequest(blob_id="b-1", destination=NewBlob(tier=BlobTier.HOST), move=True)),
            "move b-1 to host",
        ),
        (
            TransferWork(
                request=TransferRequest(
                    blob_id="b-1", destination=NewBlob(tier=BlobTier.PINNED_HOST, device_id="gpu-1")
                )
            ),
            "copy b-1 to pinned host gpu-1",
        ),
        (
            TransferWork(request=TransferRequest(blob_id="b-1", destination=ExistingBlob(blob_id="b-2"))),
            "copy b-1 into b-2",
        ),
    ],
)
def test_each_kind_of_work_has_its_own_words(work: Work, words: str) -> None:
    assert summary(work) == words


def test_prompts_can_be_kept_out_and_the_words_of_other_work_stay() -> None:
    assert summary(picture("a secret"), prompts=False) == ""
    assert summary(LoadWork(model_id="emoji-sd"), prompts=False) == "load emoji-sd"


def test_a_long_prompt_is_cut_at_a_word() -> None:
    assert summary(picture("word " * 40)) == "word " * 23 + "word…"
    assert summary(picture("x" * 200)) == "x" * 119 + "…"
    assert shortened("one, two", 7) == "one…"


@given(st.text(max_size=400), st.integers(2, 200))
def test_a_summary_is_one_printable_line_of_at_most_so_many_characters(text: str, limit: int) -> None:
    line = shortened(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert len(summary(picture(text))) <= MAX_CHARACTERS
