"""DeviceService.

parts.py             builds the device domain
servicer.py          the calls; status.py and history.py have the longer ones
messages.py, work.py values to and from messages
hardware.py          what is known before any worker runs
simulated.py         the simulated devices; simulated_workers.py applies a changed script
"""
