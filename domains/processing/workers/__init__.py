"""What the front process needs of device workers.

worker.py       orders, reports, and the protocol of a worker
ask.py          orders that are answered with a value
stall_limit.py  ends a worker that reports nothing for too long
silence.py      notices devices whose work shows no sign of life for unusually long
blobs.py        blobs that workers hold
unload.py       unloads models from devices
"""
