"""Device code that runs in a worker: the only part of this domain that may import torch."""
