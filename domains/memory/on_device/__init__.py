"""Memory as the allocator of a worker's device tells it."""
