"""Bounds of what crosses a wire, as types: a decoder refuses what is beyond them, so that code behind it need not
check.

They are wide: what is within them may still be refused, with a better sentence (domain/resources.py). They bound what
one message of one host can cost anybody.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

HostName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
ServiceName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
ShortText = Annotated[str, Meta(max_length=1024)]  # a name, an id, a version, an address, a URI
FileName = Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?\Z")]  # in a directory that is known
StorePath = Annotated[str, Meta(max_length=512, pattern=r"^(/[A-Za-z0-9._/@:+ -]*)?\Z")]  # absolute, or empty
PrintableText = Annotated[str, Meta(max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*\Z")]  # a word that people are shown
Reason = Annotated[str, Meta(max_length=65_536)]  # cut short where it is kept
Description = Annotated[str, Meta(max_length=262_144)]
Text = Annotated[str, Meta(max_length=4 * 1024 * 1024)]  # a console
Number = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]  # what every database takes
Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Protocol = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
LIST = Meta(max_length=65_536)
FEW = Meta(max_length=1024)
GuestPasswords = Annotated[  # that guests have set, by instance; as long as Nova has them
    dict[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z")],
        Annotated[str, Meta(min_length=1, max_length=1020, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*\Z")],
    ],
    FEW,
]
