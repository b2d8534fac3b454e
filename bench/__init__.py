"""One script a benchmark: `python -m bench.<name>` prints one JSON object; `bench/measure.py` has what all share."""
