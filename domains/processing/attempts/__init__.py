"""One attempt at a job, from its start on a lane to the event that ends it.

attempt.py        claims memory, runs the work, passes on a request to stop, records the end
making_room.py    unloads idle models for an attempt whose device is out of memory
moving.py         moves a job to another device when its own is out of memory
checkpoints.py    stores the checkpoints of jobs, and deletes those that no attempt will read
following.py      turns the reports of a worker into events of the job
front_task.py     work of the front process, as its runner sees it
pictures.py       stores the pictures of one attempt, and records their events
progress_rate.py  computes the completed ratio and the remaining time
reproductions.py  the pictures that are made again: read, compared with the new ones
residency.py      tells the list of loaded models what the attempt loads, uses and replaces
time_limits.py    run and load time limits
unless_set.py     awaits work unless an event is set first
"""
