"""The faults of a request, one module for each part of a Generation. `request` gathers them; `bounds` judges one number,
`named_models` a model that is named beside the generation's own."""
