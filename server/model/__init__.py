"""ModelService: servicer.py has the calls, messages.py their values as messages.

`inspect` with `inspect_messages` (InspectModel), `list_page` and `listed` (ListModels), `kinds`. For models on devices:
`loaded_methods`, `loaded_watch`, `load_messages`.
"""
