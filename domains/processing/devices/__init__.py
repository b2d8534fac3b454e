"""Devices, in their relation to jobs and workers.

statuses.py         how each device is now
care.py             checks, quarantine, and the end of a quarantine
check.py            one health check
control.py          settings that callers choose
advice.py           figures for the advice about a device
figures.py          what benchmarks measured
hot_plug.py         devices that appear, vanish and return
inventory_watch.py  looks at the inventory of one backend
"""
