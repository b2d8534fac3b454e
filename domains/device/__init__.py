"""Devices: what they are, their state, telemetry, settings and health.

device.py              a device and its states
record.py              what is known of a device, and the state that follows
devices.py             the state of all devices; every change goes through it
device_events.py       writes changes to the event log, with their causes
settings.py            settings that callers choose
sharing.py             how many jobs share a device by default
health.py              checks and verdicts
benchmark.py           results of a benchmark
advice.py              recommends settings and options for a goal
effects.py             effects of options and power limits, from measured runs
status.py              status and workload at one moment
workload.py            counts the jobs of each device
feed.py                samples for watchers
history.py             figures over a day
sample.py              figures at one moment
telemetry.py           the protocol of every backend's telemetry
threaded_telemetry.py  calls a telemetry from an event loop
driver_thread.py       makes driver calls with a deadline
cpu_telemetry.py       telemetry of the host's processor
rapl.py                power of the host's processor
host_cpu.py            name and clocks of the host's processor
cgroup.py              the memory limit of a container
nvml.py                telemetry of NVIDIA GPUs
nvml_driver.py         calls of NVML
nvml_inventory.py      GPUs that NVML lists
original_limits.py     power limits from before the server's changes
adapter.py             a graphics adapter as its driver lists it
inventory.py           devices that can be listed without a worker
threaded_inventory.py  lists a driver's devices on a thread
visible.py             applies CUDA_VISIBLE_DEVICES to NVML's list
refresh.py             result of a scan for hardware
device_names.py        names of devices in a configuration
directml/              DirectML's adapters as the operating system lists them
simulated/             simulated devices
on_device/             device code that runs in a worker
"""
