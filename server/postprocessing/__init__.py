"""PostprocessingService: none of it is built yet."""
