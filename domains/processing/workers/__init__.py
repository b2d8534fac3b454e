"""What the front process needs of device workers.

worker.py       orders, reports, and the protocol of a worker
ask.py          orders that are answered with a value
stall_limit.py  how long a worker may tell nothing
blobs.py        blobs that workers hold
unload.py       takes models off devices
"""
