"""One attempt at a job, from its place on a lane to the event that ends it.

attempt.py        its life: memory, the work, a request to stop, the end
following.py      turns the reports of the work into events of the job
pictures.py       pictures on their way to the disk
progress_rate.py  how fast the work goes on
time_limits.py    how long it may run, and load
stall_limit.py    how long its worker may tell nothing
left.py           what was left of the work when it was over
ending.py         what the job's next event is then: a function of the job, the request to stop and what was left
crash.py          that function for the death of a worker
"""
