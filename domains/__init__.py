"""The six domains: rules and state, with no gRPC and no protobuf; only `on_device` packages import torch."""
