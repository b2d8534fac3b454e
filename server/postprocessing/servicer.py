"""PostprocessingService: every method answers NOT_IMPLEMENTED (see `server.register`), because none is built yet."""


class PostprocessingServicer:
    """Defines no method yet."""
