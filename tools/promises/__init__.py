"""The table of promises, and the page that shows it.

python -m tools.promises      writes docs/promises.md

`table` reads tests/promises.toml, `named_tests` finds the tests that it names, `page` renders it.
"""
