"""Sessions: each groups an orchestrator's jobs, with a fair share, limits, and one stream of all events.

session.py       the values: settings, state, totals
settings.py      the rules for settings, and which a call changes
store.py         sessions on disk
live_session.py  a session in memory
log.py           gives the events of jobs their places in the sessions of the jobs
news.py          the events of a session, from disk and memory
sessions.py      open, change, pause, cancel and close sessions
leading.py       what a session does to its jobs
terms.py         each session's share of a busy device, and the limits of its own
idle.py          closes sessions that are not used
"""
