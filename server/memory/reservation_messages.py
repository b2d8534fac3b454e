"""Converts reservations between messages and values of the domain."""

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.memory.v1 import memory_service_pb2, reservation_pb2
from domains.memory.pools.reservation import (
    DEFAULT_LIVE_S,
    Priority,
    Reservation,
    ReservationAsk,
    ReservationState,
    ReservationWanted,
)
from server import convert

_PRIORITY = {priority: job_event_pb2.Priority.Value(f"PRIORITY_{priority.name}") for priority in Priority}


def to_reservation(reservation: Reservation) -> reservation_pb2.Reservation:
    """The message of a reservation."""
    end = reservation.end_time_s
    return reservation_pb2.Reservation(
        id=reservation.id,
        memory_pool_id=reservation.pool_id,
        size_bytes=reservation.size_bytes,
        purpose=reservation.purpose,
        priority=_PRIORITY[reservation.priority],
        state=reservation_pb2.ReservationState.Value(f"RESERVATION_STATE_{reservation.state.name}"),
        consumer_id=reservation.consumer_id,
        session_id=reservation.session_id,
        create_time=convert.to_time(reservation.create_time_s),
        expire_time=convert.to_time(reservation.expire_time_s),
        end_time=None if end is None else convert.to_time(end),
        etag=reservation.etag,
        labels=[label_pb2.Label(key=key, value=value) for key, value in reservation.labels],
    )


def from_create(request: memory_service_pb2.CreateReservationRequest) -> ReservationAsk:
    """A request for a reservation. INVALID_FIELD with all violations."""
    return ReservationAsk(
        pool_id=request.memory_pool_id,
        size_bytes=request.size_bytes,
        purpose=request.purpose,
        priority=Priority(request.priority) if request.priority else Priority.NORMAL,
        live_s=convert.from_duration(request.time_to_live) if request.HasField("time_to_live") else DEFAULT_LIVE_S,
        allow_eviction=request.allow_eviction,
        wait_s=convert.from_duration(request.wait_timeout),
        session_id=request.session_id,
        labels=convert.labels_of(request.labels),
    )


def from_filter(message: reservation_pb2.ReservationFilter, pool_ids: frozenset[str]) -> ReservationWanted:
    """A filter of reservations. `pool_ids`: the resolved names of its pools."""
    every = reservation_pb2.RESERVATION_STATE_UNSPECIFIED in message.states
    names = {reservation_pb2.ReservationState.Value(f"RESERVATION_STATE_{s.name}"): s for s in ReservationState}
    return ReservationWanted(
        states=tuple(ReservationState) if every else convert.distinct(names[state] for state in message.states),
        pool_ids=pool_ids,
        session_id=message.session_id,
        labels=convert.wanted_labels(message.labels),
    )
