"""ValidateModel."""

from typing import Any

import grpc

from deviceops.model.v1 import model_service_pb2
from domains.processing.jobs.job import Job
from domains.processing.submit import Submissions
from domains.requests import Asked
from server import convert
from server.heartbeat import Followed
from server.model.validation_messages import from_validation
from server.processing.watch import submit_and_follow

Context = grpc.aio.ServicerContext[Any, Any]


class ValidationMethods:
    """Implements ValidateModel."""

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions

    def ValidateModel(  # yields the bytes of its responses, see `register`
        self, request: model_service_pb2.ValidateModelRequest, context: Context
    ) -> Followed[bytes]:
        """Check a model's files and follow the job."""

        def submit(asked: Asked) -> Job:
            validation, options = convert.both(
                lambda: from_validation(request.model_validation), lambda: convert.from_options(request.options)
            )
            return self._submissions.validate(validation, options, asked, detached=request.detached)

        return submit_and_follow(self._submissions, request, context, submit)
