"""The gRPC server, its transports and its worker processes."""
