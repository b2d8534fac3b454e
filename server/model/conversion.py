"""ConvertModel."""

from collections.abc import Awaitable
from typing import Any

import grpc

from deviceops.model.v1 import model_service_pb2
from domains.processing.jobs.job import Job
from domains.processing.submit import Submissions
from domains.requests import Asked
from server import convert
from server.heartbeat import Followed
from server.model.conversion_messages import from_conversion
from server.processing.watch import submit_later_and_follow

Context = grpc.aio.ServicerContext[Any, Any]


class ConversionMethods:
    """Implements ConvertModel."""

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions

    async def ConvertModel(  # yields the bytes of its responses, see `register`
        self, request: model_service_pb2.ConvertModelRequest, context: Context
    ) -> Followed[bytes]:
        """Convert a model and follow the job."""

        def submit(asked: Asked) -> Awaitable[Job]:
            conversion, options = convert.both(
                lambda: from_conversion(request.model_conversion), lambda: convert.from_options(request.options)
            )
            return self._submissions.convert(conversion, options, asked, detached=request.detached)

        return await submit_later_and_follow(self._submissions, request, context, submit)
