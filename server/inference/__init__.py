"""InferenceService: servicer.py and plan.py have the calls; generation_messages.py and encode_messages.py their values as
messages."""
