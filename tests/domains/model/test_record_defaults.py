"""The defaults of the records of models.

`python -m tests.domains.model.test_record_defaults` writes `record_defaults.txt` anew.
"""

from pathlib import Path

from domains.model import (
    benchmark,
    composition,
    content_hash,
    conversion,
    detected_model,
    edit,
    execution,
    file_check,
    finding,
    fingerprint,
    folder_family,
    footprints,
    header_facts,
    image_encoders,
    layers,
    loaded,
    model,
    notes,
    places,
    reading_sizes,
    reconcile,
    register,
    roots_look,
    scan,
    validate,
    validation,
    ways,
    weight_choice,
)
from domains.model.detect import evidence, header_words, lora_base, network
from domains.model.families import family, sign
from tests.domains.record_defaults import defaults_of

FILE = Path(__file__).with_name("record_defaults.txt")
RECORDS = (
    benchmark,
    composition,
    content_hash,
    conversion,
    detected_model,
    edit,
    execution,
    file_check,
    finding,
    fingerprint,
    folder_family,
    footprints,
    header_facts,
    image_encoders,
    layers,
    loaded,
    model,
    notes,
    places,
    reading_sizes,
    reconcile,
    register,
    roots_look,
    scan,
    validate,
    validation,
    ways,
    weight_choice,
    evidence,
    header_words,
    lora_base,
    network,
    family,
    sign,
)


def test_a_record_that_does_not_say_a_field_means_what_it_always_meant() -> None:
    meant = "meant? then run python -m tests.domains.model.test_record_defaults"
    assert defaults_of(RECORDS) == FILE.read_text("utf-8"), meant


if __name__ == "__main__":
    FILE.write_text(defaults_of(RECORDS), encoding="utf-8")
