"""`deviceops serve`, `status`, `clock` and `completion`: the server as a whole."""
