"""`deviceops memory …` and `deviceops blobs …`."""
