"""Device code that runs in a worker: the only part of this domain that may import torch.

probe.py            finds out what a device is and can do
features.py         finds out features by trial
quantizations.py    finds out in which ways weights can be held in fewer bits
torch_device.py     torch's name of a device
torch_errors.py     translates torch's errors
cuda_driver.py      UUID and PCI bus id from the CUDA driver
free_memory.py      free memory, synchronization, the allocator's cache
health_check.py     runs the checks of a device
trial.py            input and result of one check
canary.py           checks computations against known results
memory_patterns.py  checks memory with bit patterns
steady_load.py      checks speed and results under steady load
operations.py       the operations that checks and benchmarks run
benchmark/          measures a device
forking.py          prepares a process from which workers are forked
"""
