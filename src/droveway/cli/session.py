"""A session with the API of the cloud that clouds.py finds, over the standard library's HTTP.

A token is kept for the next command in a file of its user's: a login is a database write and 25 ms of hashing, and
`service why` must answer while the database takes no writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import click

from droveway.cli import clouds
from droveway.cli.columns import one_line

T = TypeVar("T")
TIMEOUT_S = 30
TOKENS_MAX = 8
UNAUTHORIZED = 401


def address(root: str, *names: str, **asked: Any) -> str:
    """The path of what is called so, and what is asked of it. A name may hold anything but nothing."""
    if not all(names):
        raise click.UsageError("a name is wanted, not an empty text")
    query = {key: value for key, value in asked.items() if value not in ("", None)}
    try:
        path = "/".join([root, *(quote(name, safe="") for name in names)])
        return f"{path}?{urlencode(query)}" if query else path
    except UnicodeEncodeError as error:
        raise _not_utf8(error) from None


def encoded(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _not_utf8(error) from None


def _not_utf8(error: UnicodeEncodeError) -> click.UsageError:
    return click.UsageError(f"{error.object[error.start : error.end]!r} is not UTF-8 text, which every name is")


class _TokenRejected(Exception):
    """The API does not know the token, or no longer."""


class Session:
    """Asks with the token of an earlier command, or logs in."""

    def __init__(self) -> None:
        self._cloud = clouds.chosen()
        self.base = self._cloud.auth["auth_url"].rstrip("/").removesuffix("/v3").removesuffix("/identity")
        self._key = _key(self._cloud.auth)
        self.tls = self._trust() if self.base.startswith("https:") else None
        token = _cached_tokens().get(self._key, "")
        self._headers = {"X-Auth-Token": token} if token else {}

    def _log_in(self) -> None:
        body = encoded(self._cloud.log_in())
        _, headers = self._call("POST", "/identity/v3/auth/tokens", {}, body)
        token = headers["X-Subject-Token"]
        if token is None:
            raise self._unexpected_answer("it gave no token")
        self._headers = {"X-Auth-Token": token}
        _cache_token(self._key, token)

    def _trust(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._cloud.cacert or None)
        except (OSError, ValueError) as error:
            problem = f"{self._cloud.source}: cacert = {self._cloud.cacert} cannot be used: {error}"
            raise click.ClickException(problem) from None
        if not self._cloud.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def get(self, path: str) -> Any:
        value, _ = self._authenticated(lambda: self._call("GET", path, self._headers, None))
        return value

    def _authenticated(self, call: Callable[[], T]) -> T:
        """Log in when there is no token, or when the API does not know it any more."""
        with contextlib.suppress(_TokenRejected):
            if self._headers:
                return call()
        self._log_in()
        try:
            return call()
        except _TokenRejected:
            raise click.ClickException("the API has just given a token and does not know it; try again") from None

    def listen(self, path: str, last_id: str) -> Any:
        """The open reply to a request for an event stream, to be read line by line and closed."""
        more = {"Last-Event-ID": last_id} if last_id else {}
        return self._authenticated(lambda: self._open("GET", path, self._headers | more, None))

    def post(self, path: str, body: Any = None) -> Any:
        return self._send("POST", path, body)

    def delete(self, path: str) -> Any:
        value, _ = self._authenticated(lambda: self._call("DELETE", path, self._headers, None))
        return value

    def patch(self, path: str, body: Any) -> Any:
        return self._send("PATCH", path, body)

    def _send(self, method: str, path: str, body: Any) -> Any:
        data = encoded(body or {})
        value, _ = self._authenticated(lambda: self._call(method, path, self._headers, data))
        return value

    def _call(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> tuple[Any, Any]:
        try:
            with self._open(method, path, headers, body) as reply:
                return json.loads(reply.read() or b"null"), reply.headers
        except ValueError as error:
            raise self._unexpected_answer(f"its reply is no JSON: {error}") from None
        except (OSError, HTTPException) as error:  # it was lost half way
            raise self._no_answer(error) from None

    def _open(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Any:
        request = urllib.request.Request(
            self.base + path, data=body, method=method, headers={"Content-Type": "application/json", **headers}
        )
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self.tls)
        except urllib.error.HTTPError as error:
            if error.code == UNAUTHORIZED and "X-Auth-Token" in headers:
                raise _TokenRejected from None
            raise click.ClickException(api_reason(error)) from None
        except (OSError, ValueError) as error:
            raise self._no_answer(error) from None

    def _unexpected_answer(self, why: str) -> click.ClickException:
        return click.ClickException(f"{self.base} does not answer as the API does ({why}); see that auth_url is right")

    def _no_answer(self, error: Exception) -> click.ClickException:
        reason = getattr(error, "reason", error)
        clone = os.environ.get("DROVEWAY_DEV")
        hint = f"'{clone} up' starts the cloud" if clone else "see that auth_url is right and that droveway runs there"
        return click.ClickException(f"{self.base} does not answer ({reason}); {hint}")


def _key(auth: dict[str, str]) -> str:
    """What the token of these credentials is kept under: no other token is ever sent for them."""
    return hashlib.sha256(json.dumps(auth, sort_keys=True).encode()).hexdigest()


def _file() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "droveway" / "tokens.json"


def _cached_tokens() -> dict[str, str]:
    """The tokens of the last few clouds, the newest last."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_file().read_text())
        if isinstance(found, dict):
            return {str(key): str(token) for key, token in found.items()}
    return {}


def _cache_token(key: str, token: str) -> None:
    """For its owner's eyes. Where it cannot be kept, the next command logs in again."""
    with contextlib.suppress(OSError):
        path = _file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokens = {**{old: kept for old, kept in _cached_tokens().items() if old != key}, key: token}
        temporary = path.with_suffix(f".{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(dict(list(tokens.items())[-TOKENS_MAX:]), file)
        temporary.rename(path)


def api_reason(error: urllib.error.HTTPError) -> str:
    try:
        body = next(iter(json.loads(error.read()).values()))
        return one_line(str(body["message"]))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, OSError, HTTPException):
        return f"{error.url} answered {error.code} {error.reason}: see that it is the API"
