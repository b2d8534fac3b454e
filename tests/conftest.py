"""For all tests."""

import signal

# A shell ignores Ctrl-C in what it starts in the background, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
