"""The pages of consoles, and the files that they are made of.

    GET /console/vnc/{server_id}?token=…      a screen, shown by noVNC (console.novnc_path, from its own package)
    GET /console/serial/{server_id}?token=…   a serial line, shown by xterm.js, which is in this package
    GET /console/files/own/… /novnc/… /xterm/…

A page takes the token out of its address before anything else, so that neither a history nor a bookmark keeps it.
Nothing is fetched from anywhere but this API.
"""

from __future__ import annotations

from pathlib import Path

from droveway.api.http.origins import origin_of
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound, Unreachable

OWN = Path(__file__).parent / "files"
DEPTH_MAX = 7  # of the files of noVNC
PATHS = tuple("".join(f"/{{f{n}}}" for n in range(depth)) for depth in range(2, DEPTH_MAX + 1))
FILE_MAX_BYTES = 4 << 20
_KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
}
_NO_NOVNC = (
    "noVNC, which shows screens, is not installed where this API runs (console.novnc_path = {}): install the package "
    "novnc there. The serial console needs nothing more."
)


async def screen(api: Api, request: Request) -> Response:
    """The page of a server's screen."""
    novnc = Path(api.settings.consoles.novnc_path)
    if not (novnc / "core" / "rfb.js").is_file():
        raise Unreachable(_NO_NOVNC.format(novnc))
    return await _page(api, "vnc.html")


async def line(api: Api, request: Request) -> Response:
    """The page of a server's serial line."""
    return await _page(api, "serial.html")


async def _page(api: Api, name: str) -> Response:
    frames = b" ".join([b"'self'", *(origin_of(one).encode() for one in api.settings.allowed_origins)])
    policy = (
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        b"img-src 'self' data: blob:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors " + frames
    )
    found = await _read(api, OWN / name)
    found.headers += [
        (b"content-security-policy", policy),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
    ]
    return found


async def give_file(api: Api, request: Request) -> Response:
    """A part of a page."""
    place, *names = (request.params[f"f{n}"] for n in range(len(request.params)))
    roots = {"own": OWN, "xterm": OWN / "xterm", "novnc": Path(api.settings.consoles.novnc_path)}
    if place not in roots or any(name in ("", ".", "..") or "/" in name for name in names):
        raise NotFound("There is no such file of a console.")
    found = await _read(api, roots[place].joinpath(*names))
    found.headers.append((b"cache-control", b"private, max-age=3600"))
    return found


async def _read(api: Api, path: Path) -> Response:
    kind = _KINDS.get(path.suffix)

    def read() -> bytes | None:
        try:
            return path.read_bytes() if path.stat().st_size <= FILE_MAX_BYTES else None
        except OSError:
            return None

    data = await api.files.run(read) if kind is not None else None
    if kind is None or data is None:
        raise NotFound("There is no such file of a console.")
    return Response(200, headers=[(b"content-type", kind), (b"x-content-type-options", b"nosniff")], body=data)
