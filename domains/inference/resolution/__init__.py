"""Each choice that a request left open: `resolve` makes them all, with what was read for the request (`request_files`)."""
