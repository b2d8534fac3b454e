"""Devices, as far as they have to do with jobs and workers.

statuses.py         how each device is now
care.py             checks, quarantine, and the way back from it
check.py            one health check
control.py          settings that callers choose
advice.py           figures for the advice about a device
figures.py          what benchmarks measured
hot_plug.py         devices that appear, vanish and return
inventory_watch.py  looks at one backend
"""
