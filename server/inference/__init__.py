"""InferenceService: servicer.py has the calls; generation_messages.py and encode_messages.py their values as messages."""
