"""Pages of the models' list. A token names the last model of its page by order and id, so that models that come or go
between two pages neither repeat nor hide those that stay."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

import msgspec

from deviceops.model.v1 import model_pb2, model_service_pb2
from domains.errors import InvalidRequest, Violation
from server import paging

_NAME_BYTES = 80
"""Bytes of a display name that count in its order: a token has room for no more."""

Key = tuple[int | str, str]
"""What models are ordered by, then the id."""


class _Mark(msgspec.Struct, frozen=True, array_like=True):
    order: int
    key: int | str
    id: str


def _named(model: model_pb2.Model) -> str:
    return model.display_name.casefold().encode()[:_NAME_BYTES].decode("utf-8", "ignore")


_ORDERS: Mapping[int, Callable[[model_pb2.Model], int | str]] = {
    model_service_pb2.MODEL_ORDER_UNSPECIFIED: lambda model: "",
    model_service_pb2.MODEL_ORDER_DISPLAY_NAME: _named,
    model_service_pb2.MODEL_ORDER_SIZE: lambda model: -model.size_bytes,
    model_service_pb2.MODEL_ORDER_UPDATE_TIME: lambda model: -model.update_time.ToNanoseconds(),
    # 0 for a model that was never used: it comes after all others.
    model_service_pb2.MODEL_ORDER_LAST_USE_TIME: lambda model: -model.usage.last_use_time.ToNanoseconds(),
}


def page_of(
    models: Sequence[model_pb2.Model], request: model_service_pb2.ListModelsRequest
) -> tuple[Sequence[model_pb2.Model], str]:
    """The models of one page, and the token of the next. Raises INVALID_FIELD."""
    order = _ORDERS[request.order]

    def key(model: model_pb2.Model) -> Key:
        return order(model), model.id

    size, mark = paging.size_of(request.page_size), _mark(request)
    ordered = sorted(models, key=key)
    begin = bisect_right(ordered, (mark.key, mark.id), key=key) if mark else 0

    def read(count: int) -> tuple[Sequence[model_pb2.Model], int | None]:
        end = begin + count
        return ordered[begin:end], end if end < len(ordered) else None

    page, more = paging.fill(read, size, lambda model: model)
    return page, _token(request.order, *key(page[-1])) if more else ""


def _token(order: int, key: int | str, model_id: str) -> str:
    body = msgspec.msgpack.encode(_Mark(order=order, key=key, id=model_id))
    return base64.urlsafe_b64encode(body).decode()


def _mark(request: model_service_pb2.ListModelsRequest) -> _Mark | None:
    """The mark in the request's token. None: the first page."""
    if not request.page_token:
        return None
    try:
        body = base64.b64decode(request.page_token, altchars=b"-_", validate=True)
        mark = msgspec.msgpack.decode(body, type=_Mark)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        mark = None
    if mark is None or mark.order != request.order or isinstance(mark.key, int) is not _counts(request.order):
        message = "is no token that this server gave for this order; leave it empty for the first page"
        raise InvalidRequest([Violation(field="page_token", message=message)])
    return mark


def _counts(order: int) -> bool:
    return order not in (model_service_pb2.MODEL_ORDER_UNSPECIFIED, model_service_pb2.MODEL_ORDER_DISPLAY_NAME)
