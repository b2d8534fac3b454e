"""DirectML's adapters as the operating system lists them, without a worker or torch.

com.py             calls COM objects through ctypes
dxcore.py          the operating system's list of adapters
dxcore_adapter.py  reads the properties of one listed adapter
adapter.py         the value of an adapter, and the device that follows from it
inventory.py       lists the adapters for the server
"""
