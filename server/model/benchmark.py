"""BenchmarkModel."""

from typing import Any

import grpc

from deviceops.model.v1 import model_service_pb2
from domains.processing.jobs.job import Job
from domains.processing.submit import Submissions
from domains.requests import Asked
from server import convert
from server.heartbeat import Followed
from server.model.benchmark_messages import from_model_benchmark
from server.processing.watch import submit_and_follow

Context = grpc.aio.ServicerContext[Any, Any]


class BenchmarkMethods:
    """Implements BenchmarkModel."""

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions

    def BenchmarkModel(  # yields the bytes of its responses, see `register`
        self, request: model_service_pb2.BenchmarkModelRequest, context: Context
    ) -> Followed[bytes]:
        """Measure a model and follow the job."""

        def submit(asked: Asked) -> Job:
            measured, options = convert.both(
                lambda: from_model_benchmark(request.model_benchmark), lambda: convert.from_options(request.options)
            )
            return self._submissions.benchmark_model(measured, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)
