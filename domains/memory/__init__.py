"""Memory: how much each pool has, who uses it, who may use it, and the blobs that lie in it.

measure     one measurement of a pool and its owners
pools       budgets, reservations, claims, pressure and clean-ups of the pools
blobs       bytes too large for a message, in every tier
on_device   the allocator and the blobs of a device, inside a worker
"""
