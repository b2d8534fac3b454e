"""`deviceops devices` and `deviceops device …`."""
