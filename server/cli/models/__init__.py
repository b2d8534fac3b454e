"""`deviceops models …`, one module for each command."""
