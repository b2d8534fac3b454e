"""The limits and defaults that the contract tells callers: another value would be another contract."""

from domains.model import edit, loaded, reconcile, scan, validation, walk


def test_models() -> None:
    assert (edit.MAX_DISPLAY_NAME, validation.MAX_FINDINGS, reconcile.MAX_ENTRIES) == (255, 200, 4000)
    assert (scan.MAX_PROBLEMS, walk.MAX_DEPTH, loaded.LONGEST_STAY_S) == (1000, 6, 30 * 24 * 3600.0)
