"""Calls to a server: its address, one connection with time limits, ids, pages of lists, and jobs followed to their end."""
