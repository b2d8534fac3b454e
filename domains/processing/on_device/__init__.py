"""The worker's side of processing: carries out orders on one device, with torch. Knows no transport.

channel.py        commands to the loop and reports from it: what a transport implements
orders.py         the loop: takes orders, drives the step loop, sends reports
inbox.py          the loop's commands, and requests to stop found among them
served_device.py  the device of this process: its torch name, its probe, its simulated hardware
device_orders.py  orders about the device itself: checks, benchmarks, emptying, blobs
model_benchmark.py  measures a model, run by run
refusal.py        errors as reports, and a device that this process cannot serve
"""
