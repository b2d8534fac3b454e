"""ProcessingService: jobs, the log of changes, and the status of the server.

parts.py                             builds what runs jobs
servicer.py                          the calls
watch.py                             `submit_and_follow`, and following a job
job_messages.py                      jobs and their events as messages
job_kinds.py                         how each kind of work looks in the contract: one entry each
label_deletion.py                    DeleteByLabels
queue.py                             GetQueue
clock_methods.py                     ConfirmClock
announce.py                          writes the log of changes
system_events.py, event_messages.py  WatchEvents
status.py, nodes.py                  GetSystemStatus
"""
