"""Memory inside a worker process.

allocator      measure the allocator, empty its caches
device_blobs   blobs in tensors
driver         figures of the driver and the C library
"""
