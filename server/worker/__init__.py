"""Device workers: one process each, spoken to in frames.

process.py   the worker process: takes the pipe, then torch, then orders
orders.py    its loop: orders in, reports out, the step loop between
link.py      the front's end of one worker
keeper.py    starts a worker, and starts it again when it dies
"""
