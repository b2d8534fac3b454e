"""One attempt at a job, from its place on a lane to the event that ends it.

attempt.py        its life: memory, the work, a request to stop, the end
following.py      turns the reports of a worker into events of the job
front_task.py     work of the front process, as its runner sees it
pictures.py       pictures on their way to the disk
progress_rate.py  how fast the work goes on
time_limits.py    how long it may run, and load
unless_set.py     a wait that an event breaks off
"""
