"""Reading messages that anybody may have made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


def decoder(of: Any) -> Callable[[bytes], Any]:
    """Reads one of these types; whatever the bytes are, it raises nothing but DecodeError."""
    read = msgspec.msgpack.Decoder(of).decode

    def decode(data: bytes) -> Any:
        try:
            return read(data)
        except RecursionError:
            raise msgspec.DecodeError("it is nested too deeply") from None
        except UnicodeDecodeError:
            raise msgspec.DecodeError("it holds a text that is not UTF-8") from None

    return decode
