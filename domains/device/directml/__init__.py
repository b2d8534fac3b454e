"""DirectML's adapters as the system lists them, without a worker or torch.

com.py            objects of COM, by ctypes
dxcore.py         the system's list; dxcore_adapter.py reads one of its entries
adapter.py        what is known of an adapter, and the device that it is
inventory.py      the front's look at them
"""
