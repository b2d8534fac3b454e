"""ModelService: servicer.py has the calls, messages.py their values as messages."""
