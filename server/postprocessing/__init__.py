"""PostprocessingService, of which nothing is built yet."""
