"""What waits for a place to run, and the places.

placement.py    where a job may run, as a value that jobs share
queue.py        which job is next
lane.py         one place: a device's worker, or a kind of work of the front process
lanes.py        all of them, and turns ahead of the queue
backlog.py      what waits for which device
room_signal.py  tells that something may be able to start
board.py        all of these together, built before everything that looks at them
"""
