"""The defaults of the records of memory pools and blobs.

`python -m tests.domains.memory.test_record_defaults` writes `record_defaults.txt` anew.
"""

from pathlib import Path

from domains.memory import measure
from domains.memory.blobs import blob, collection, listing, quotas, registration_request, transfer_request
from domains.memory.pools import advice, budget, budgets, history, pool, reclaim, reservation, reservation_queue
from tests.domains.record_defaults import defaults_of

FILE = Path(__file__).with_name("record_defaults.txt")
RECORDS = (
    measure,
    blob,
    collection,
    listing,
    quotas,
    registration_request,
    transfer_request,
    advice,
    budget,
    budgets,
    history,
    pool,
    reclaim,
    reservation,
    reservation_queue,
)


def test_a_record_that_does_not_say_a_field_means_what_it_always_meant() -> None:
    meant = "meant? then run python -m tests.domains.memory.test_record_defaults"
    assert defaults_of(RECORDS) == FILE.read_text("utf-8"), meant


if __name__ == "__main__":
    FILE.write_text(defaults_of(RECORDS), encoding="utf-8")
