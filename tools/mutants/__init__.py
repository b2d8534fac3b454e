"""A mutation tester: puts one small fault at a time into a folder of `domains/` and asks whether its tests notice.

- `faults.py`: the faults that one source file can have
- `__main__.py`: draws a seeded sample, runs the tests for each fault in a copy of the tree, prints the share

mutmut and cosmic-ray were not taken: both want a run over all faults of a module, or a database of them; here a seeded
sample over a folder is enough, and a fault must be run again by its number.
"""
