"""InferenceService: servicer.py, plan.py and conditioning_preview.py have the calls; generation_messages.py and
encode_messages.py their values as messages."""
