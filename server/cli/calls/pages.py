"""Reads lists of the server page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

LARGEST_PAGE = 1000
"""The most entries that the server puts on a page."""


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


Page = TypeVar("Page", bound=_Page)


def pages(fetch: Callable[[str], Page]) -> Iterator[Page]:
    """All pages of a list. `fetch`: a page by its token; the first has an empty one."""
    token, more = "", True
    while more:
        page = fetch(token)
        yield page
        token, more = page.next_page_token, bool(page.next_page_token)
