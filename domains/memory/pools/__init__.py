"""Memory pools. `pools.Pools` is the entrance.

pools               all pools: measure, sample, view, set a budget
pool                values: a pool as it is now, the room in it, the error when it is full
state               what is known of one pool
gauge               one measurement at a time
host_pool           source of the pool `host`
disk_pool           source of the pool `disk`

budget              value: limit, headroom and thresholds
budgets             setting a budget while memory is in use
pressure            pressure levels and the forecast
pressure_log        the last changes of pressure

reservation         values: a reservation, a request for one, a filter
reservations        all reservations: hold, renew, use up, end
reservation_queue   granting: at once, after an eviction, or in turn
reservation_table   reservations by id
waiting_line        the requests that wait for one pool
claims              bytes that are set aside and not measured yet
admission           claims for consumers that are about to allocate

reclaim             planning a clean-up
reclaiming          running clean-ups

history             samples of a day
leaks               owners whose memory grows without more work
advice              recommendations from what was measured
"""
