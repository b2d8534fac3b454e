"""A mutation tester: puts one small fault at a time into a folder of `domains` or `server` and asks whether a test notices.

- `faults.py`: the faults that one source file can have
- `reach.py`: which test calls which function; `in_children/` says so of processes that tests start
- `trial.py`: runs tests against faults in forked processes
- `__main__.py`: draws a seeded sample, tries each fault against the tests that call its function, prints the share

`docs/mutants.md` keeps the results.

mutmut and cosmic-ray were not taken: both want a run over all faults of a module, or a database of them; here a seeded
sample over a folder is enough, and a fault must be run again by its number.
"""
