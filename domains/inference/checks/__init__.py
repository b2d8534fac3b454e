"""The faults of a request, one module for each part of a Generation. `request` gathers them; `bounds` judges one number."""
