"""The queue, and the lanes on which jobs run.

placement.py    where a job may run, as a value that jobs share
queue.py        which job is next
lane.py         one place: a device's worker, or a kind of work of the front process
lanes.py        all lanes, and turns ahead of the queue
waits.py        what each waiting job waits for
overview.py     the whole queue at one moment
backlog.py      which jobs wait for which device
room_signal.py  signals that a job may be able to start
board.py        queue, lanes and signal together, built before their users
"""
