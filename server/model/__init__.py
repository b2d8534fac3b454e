"""ModelService: servicer.py has the calls, messages.py their values as messages.

Models on disk: `list_page` with `listed` and `list_filter` (ListModels), `registering`, `edits` (UpdateModel, ForgetModel),
`inspect`, `validation`, `conversion`, `reconcile`, `files`, `findings`, `kinds`.
Models on devices: `loaded_methods`, `loaded_watch`, `load_messages` with `way_messages` and
`quantization_messages`, `estimate`, `prefetch`, `benchmark`.
Each `…_messages` converts the values of the module before it.
"""
