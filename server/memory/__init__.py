"""MemoryService.

parts.py                                     builds the memory domain
servicer.py                                  the calls, from pools.py, reservations.py and blobs.py
watch.py, blob_pieces.py                     streams of samples, and of a blob's chunks
messages.py, reservation_messages.py, blob_messages.py   values to and from messages
"""
