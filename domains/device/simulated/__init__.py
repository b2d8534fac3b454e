"""The simulated device: a real worker process that computes on the CPU, behind scripted memory, speed, heat and faults.

What the front needs is here; what the worker needs is in `domains.inference.on_device.simulated`. README.md is for users.
"""
