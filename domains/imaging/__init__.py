"""Image files: encode, decode, embed and read manifests. A leaf: numpy only, no torch, no other domain."""
