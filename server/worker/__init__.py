"""Device workers: one process each, spoken to in frames.

process.py   the worker process: takes the pipe, then torch, then orders
orders.py    its loop: orders in, reports out, the step loop between
device_orders.py what concerns the device as a whole: checks, benchmarks, clean-ups, blobs
model_loads.py   the models that it has brought onto its device
refusal.py   what it refuses, or why it cannot serve its device at all
command.py   what the process is started with
life.py      one worker from its start to its end, wherever it runs, and the protocol of who starts it
launcher.py  starts it here: a fork of the nursery, else a new process
nursery.py   the process that workers are forked from
nursery_keeper.py the server's end of it
fork_order.py    what goes between the two
wire.py      what goes over the pipe
link.py      the front's end of one worker
image_frames.py  a picture's bytes on the pipe, for both ends
keeper.py    starts a worker, and starts it again when it dies
listener.py  whom a keeper reports to
fleet.py     the keepers of all devices; implements the listener
"""
