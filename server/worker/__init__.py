"""Device workers: one process each, connected to the server through frames.

In the server:
fleet.py           the workers of all devices
keeper.py          starts one worker, and restarts it when it dies
listener.py        the protocol of what a keeper reports to
life.py            protocols of a worker's run, its link and its launcher, here or on another machine
process_life.py    one run of a worker that is a child process
launcher.py        starts a worker on this machine: a fork of the nursery, else a new process
nursery_keeper.py  the server's end of the nursery
given_nursery.py   a nursery that the server was started with
fork_order.py      messages between server and nursery
allowed_environment.py  the variables that workers get of the server's
command.py         command line of a worker
link.py            the server's end of one worker

In the worker:
nursery.py         the process that workers are forked from
process.py         the worker process: takes the pipe, then imports torch, then serves orders
frame_orders.py    the channel of `domains.processing.on_device.orders`, over frames

In both:
wire.py            methods and encoding of calls
image_frames.py    a picture's bytes in frames
"""
