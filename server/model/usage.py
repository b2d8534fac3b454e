"""Converts how a model was used."""

from deviceops.model.v1 import model_pb2
from domains.processing.memory.usage import UNUSED, Usage
from server import convert


def put_usage(message: model_pb2.Model, usage: Usage) -> None:
    """Tell in a model's message how it was used since the server started; nothing if it was not."""
    if usage == UNUSED:
        return
    message.usage.CopyFrom(
        model_pb2.ModelUsage(
            load_count=usage.load_count,
            job_count=usage.job_count,
            last_use_time=convert.to_time(usage.last_use_time_s) if usage.last_use_time_s else None,
            load_latency=None if usage.load is None else convert.to_latency(usage.load),
            job_latency=None if usage.job is None else convert.to_latency(usage.job),
        )
    )
