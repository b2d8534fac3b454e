"""What a job is: its value, its events, its states, and their storage.

job.py             the value, as it is stored and listed
kinds/             the kinds of work, one entry each
event.py           the events of its journal
state.py           the state machine
live_job.py        a job in memory with its journal, and how an event changes it
jobs.py            all jobs: submit, look up, cancel, delete
in_memory.py       the jobs in memory; loads others from disk
recorder.py        writes events into journals, durable before they are visible
store.py, rows.py  jobs and events on disk
session_log.py     how the events of jobs reach the sessions of the jobs
erasure.py         removes the text of deleted jobs from the write-ahead log
filter.py          which jobs a list shows
unread.py          results that followers have not read yet
unreadable.py      a stored job that this server cannot read
outcome.py         the outcome of an attempt's work
ending.py          which event ends an attempt: a function of the job, the request to stop and the outcome
crash.py           that function for the death of a worker
callers.py         counts the calls that follow a job
options_update.py  which options of a job can be changed, and when
preview_wishes.py  the previews that its watchers want
expiry.py          deletes jobs and blobs after their retention
label_deletion.py  deletes jobs and blobs by labels
summary.py         a job in one line
instant.py         a moment on both clocks
"""
