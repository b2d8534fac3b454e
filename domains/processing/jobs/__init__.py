"""What a job is: its value, its events, its states, and where they are kept.

job.py             the value, as it is stored and listed
kinds/             the kinds of work, one entry each
event.py           what its journal says
state.py           the state machine
live_job.py        a job in memory with its journal, and how an event changes it
jobs.py            all jobs: submit, look up, cancel, forget
recorder.py        writes events into journals, durable before they are seen
store.py, rows.py  jobs and events on disk
filter.py          which jobs a list shows
unreadable.py      a stored job that this server cannot read
left.py            what was left of the work when an attempt was over
ending.py          which event ends an attempt: a function of the job, the request to stop and what was left
crash.py           that function for the death of a worker
callers.py         the calls that follow a job
preview_wishes.py  the previews that its watchers want
expiry.py          forgets what was kept long enough
label_deletion.py  deletes what has some labels
summary.py         a job in one line
instant.py         a moment on both clocks
"""
