"""For all tests."""

import os
import signal

# A shell ignores Ctrl-C in what it starts in the background, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two test processes on two cores: a worker that computes with a thread a core would spin against the other's.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
