"""`deviceops jobs`, `job`, `cancel`, `watch`, `events` and `sessions`."""
