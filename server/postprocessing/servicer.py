"""PostprocessingService: none of it is built yet; every method answers UNIMPLEMENTED (see `server.register`)."""


class PostprocessingServicer:
    """Will change pictures and check them."""
