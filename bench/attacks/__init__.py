"""Attacks from the wire that take too long for the suite. Each prints its figures; the suite has a short version of each."""
