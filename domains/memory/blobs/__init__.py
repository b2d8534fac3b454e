"""Blobs: bytes too large for a message. `store.BlobStore` is the entrance.

store                  all blobs: look up, hold, read, delete
blob                   values: a blob, its tier, state and origin
rows                   the rows of all blobs; those on disk are durable
links                  which owner needs which blob
listing                filters and pages

requests               blobs that clients make, one for each request id
creation               a new blob: checked, admitted, allocated, filled
quotas                 limits on count and bytes of clients' blobs; the protocol that may refuse a blob
uploads                bytes into a blob, chunk by chunk
hashes                 hashes of blobs that are being written
transfer               bytes from one blob into another tier
transfer_request       values of a transfer, and its checks

access                 opening a blob to read or write
readers                which blobs are open
collection             when a blob is removed
freeing                bytes of removed blobs, freed now or later
listeners              functions that are called when a blob expired or was lost
owners                 blobs as owners of memory in a pool

tiers                  what each tier can do
files                  tier DISK
host_memory            tier HOST
device_memory          tiers DEVICE and PINNED_HOST, through a worker
mapped_tier            tier MAPPED
mapped                 reading a file of another process
mapped_windows         named shared memory on Windows
registration           RegisterBlob: generations of a mapped blob
registration_request   value of a registration, and its checks
registration_look      the file or shared memory behind a registration
power_loss             finds blobs that lost bytes in a power failure
roots                  folders whose files may be mapped
"""
