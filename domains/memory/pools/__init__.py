"""Memory pools: measured, budgeted, promised, cleaned up. `pools` is the door; `pool` the value."""
