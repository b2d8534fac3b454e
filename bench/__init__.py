"""One script for each benchmark: `python -m bench.<name>` prints one JSON object. `bench/measure.py` has what all share."""
