"""Simulated devices: a real worker process that computes on the CPU, with scripted memory, speed, heat and faults.

This package is the server's part; the worker's part is `domains.inference.on_device.simulated`. README.md is for users.

script.py       devices and their properties
script_file.py  reads a script from TOML
faults.py       the kinds of fault
fault_counts.py counts how often each fault has struck
watch.py        reads a changed script and reports the difference
describe.py     the `Device` of a scripted device
telemetry.py    load, temperature, power and memory of a scripted device
heat.py         a first-order lag
"""
