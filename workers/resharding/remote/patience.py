"""Decide how often something that fails in passing is tried again, and how long to wait between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from workers.resharding.remote.errors import PassingError, RemoteError

ATTEMPTS = 8
FIRST_S, LONGEST_S = 0.1, 10.0  # before the second attempt, and before any

T = TypeVar("T")


def patiently(ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns in the end.

    Raises:
        RemoteError: it failed in passing every time.
    """
    from tenacity import (
        Retrying,
        retry_if_exception_type,
        stop_after_attempt,
        wait_random_exponential,
    )

    attempts = Retrying(  # at random times: eight ranks should not come back at once
        retry=retry_if_exception_type(PassingError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=FIRST_S, max=LONGEST_S),
        reraise=True,
    )
    try:
        return attempts(ask)
    except PassingError as error:
        raise RemoteError(error.url, f"{error.reason}, {ATTEMPTS} times") from None
