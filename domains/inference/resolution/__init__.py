"""Each choice that a request left open: `resolve` makes them all, with the parts of a Generation that need files."""
