"""What every verb is: what is asked of a host, with the one type of reply to it."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

R = TypeVar("R")


class VerbWithReply(msgspec.Struct, Generic[R], frozen=True):
    """A verb; in brackets the one type of reply to it. A failure (ports/replies.py) may come in its place."""
