"""The memory that jobs and blobs need: claims it, measures it and frees it.

model_use.py       which models jobs need, and which jobs use a loaded one
job_admission.py   holds the memory that an attempt needs
host_loads.py      brings models into the RAM tier
prefetch.py        reads models ahead, as callers hint
blob_admission.py  holds the memory of a blob
hold_back.py       devices that start nothing while their memory is short
estimates.py       what a load and its use would cost on each device
run_times.py       how long a generation runs, from those that were measured
generation_plan.py what a generation would cost, and where
keep_alive.py      unloads models whose keep-alive is over
care.py            frees memory, for the clean-ups of the pools
device_pool.py     the memory of devices and host, as their workers measure it
company.py         decides which jobs run beside each other on a device
drained_unload.py  unloads models after the jobs that use them have ended
kept_on_host.py    models that left their device and wait in the RAM tier
usage.py           how models are used: loads, jobs and how long both took
last_measures.py   what each worker measured last
"""
