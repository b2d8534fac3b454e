"""MemoryService: reservations."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from deviceops.memory.v1 import memory_service_pb2 as messages
from domains import limits
from domains.errors import NotFound
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservation import DEFAULT_LIVE_S, Reservation
from domains.memory.pools.reservation_queue import Granted, ReservationQueue
from domains.memory.pools.reservations import Reservations
from domains.requests import Remembered, Requests, in_memory
from server import convert, paging
from server.memory.reservation_messages import from_create, from_filter, to_reservation
from server.once import asked_of, keeps_its_answers

Context = grpc.aio.ServicerContext[Any, Any]


class ReservationMethods:
    """The methods for reservations."""

    def __init__(
        self,
        queue: ReservationQueue,
        reservations: Reservations,
        pools: Pools,
        check_session: Callable[[str], object],
        check_open: Callable[[str], None] = lambda device_id: None,
    ) -> None:
        """`check_session` raises SESSION_NOT_FOUND, and ILLEGAL_STATE for a closed one. `check_open` takes the pool's device
        (or an empty id) and raises DRAINING, DEVICE_DISABLED or DEVICE_LOST where no new work is taken."""
        self._queue = queue
        self._reservations = reservations
        self._reservable_pools = pools
        self._check_session = check_session
        self._check_open = check_open
        self._requests: Requests[Granted] = in_memory(Remembered())

    @keeps_its_answers
    async def CreateReservation(
        self, request: messages.CreateReservationRequest, context: Context
    ) -> messages.CreateReservationResponse:
        """Keep bytes free. The same request again returns the reservation as it is now, or RESERVATION_NOT_FOUND."""
        granted = await self._requests.once(asked_of(request), lambda: self._create(request))
        return messages.CreateReservationResponse(
            reservation=to_reservation(self._reservations.get(granted.reservation.id)),
            evicted_loaded_model_ids=granted.evicted_ids[: limits.NAMED_IDS],
        )

    async def _create(self, request: messages.CreateReservationRequest) -> Granted:
        ask = from_create(request)
        source = self._reservable_pools.get(ask.pool_id).source
        if ask.session_id:
            self._check_session(ask.session_id)
        self._check_open(source.device_id)
        return await self._queue.create(ask)

    async def GetReservation(
        self, request: messages.GetReservationRequest, context: Context
    ) -> messages.GetReservationResponse:
        """Return one reservation, HELD or ended within the last hour."""
        return messages.GetReservationResponse(
            reservation=to_reservation(self._reservations.get(request.reservation_id))
        )

    async def ListReservations(
        self, request: messages.ListReservationsRequest, context: Context
    ) -> messages.ListReservationsResponse:
        """List the reservations that pass the filter, newest first."""
        size, before = paging.size_of(request.page_size), paging.place_of(request.page_token)
        wanted = from_filter(request.filter, frozenset(map(self._pool_id, request.filter.memory_pool_ids)))
        fitting = [each for each in self._reservations.list(wanted) if before is None or each.sequence < before]

        def read(count: int) -> tuple[Sequence[Reservation], int | None]:
            page = fitting[:count]
            return page, page[-1].sequence if len(fitting) > count else None

        reservations, following = paging.fill(read, size, to_reservation)
        return messages.ListReservationsResponse(reservations=reservations, next_page_token=following)

    async def RenewReservation(
        self, request: messages.RenewReservationRequest, context: Context
    ) -> messages.RenewReservationResponse:
        """Extend the time to live, or change the size."""
        renewed = await self._reservations.renew(
            request.reservation_id,
            convert.from_duration(request.time_to_live) if request.HasField("time_to_live") else DEFAULT_LIVE_S,
            request.size_bytes if request.HasField("size_bytes") else None,
            request.etag,
        )
        return messages.RenewReservationResponse(reservation=to_reservation(renewed))

    async def DeleteReservation(
        self, request: messages.DeleteReservationRequest, context: Context
    ) -> messages.DeleteReservationResponse:
        """Delete a reservation and free its bytes."""
        released = self._reservations.delete(request.reservation_id, request.etag)
        return messages.DeleteReservationResponse(released_bytes=released)

    def _pool_id(self, name: str) -> str:
        try:
            return self._reservable_pools.get(name).source.pool_id
        except NotFound:
            # A filter by an unknown pool fits no reservation.
            return name
