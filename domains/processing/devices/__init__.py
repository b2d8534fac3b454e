"""Devices, in their relation to jobs and workers.

statuses.py         how each device is now
care.py             checks, quarantine, and the end of a quarantine
check.py            one health check
control.py          settings that callers choose
advice.py           figures for the advice about a device
figures.py          what benchmarks measured
pixel_costs.py      how the time of work grows with its pictures
step_times.py       how long steps take, measured and estimated
step_limit.py       refuses sizes whose steps would take too long
hot_plug.py         devices that appear, vanish and return
inventory_watch.py  looks at the inventory of one backend
"""
