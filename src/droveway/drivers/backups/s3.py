"""Backups as objects of a bucket, on any server that speaks S3 (Ceph's gateway among them): five requests, signed as
version 4 of its signatures says. A library for all of S3 would be 20 MB for them.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import ssl
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from droveway.ports.backups import BackupsDown, BackupsRefused
from droveway.ports.clock import Clock

WORKERS = 8
ANSWERS_WITHIN_S = 20.0
TRIES = 3
ANSWER_MAX_BYTES = 1 << 30  # a record of a volume of several TiB
_SIGNED = "host;x-amz-content-sha256;x-amz-date"


class S3Settings(msgspec.Struct, frozen=True):
    """Of the server and its bucket, which is there already."""

    url: str
    bucket: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"


class _Reply(NamedTuple):
    status: int
    body: bytes


class S3Backups:
    """Answers droveway.ports.backups.BackupObjects."""

    def __init__(self, settings: S3Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._url = urlsplit(settings.url)
        self._where = f"{settings.url}/{settings.bucket}"
        self._pool = ThreadPoolExecutor(WORKERS, "backups")
        self._idle: list[http.client.HTTPConnection] = []

    async def get(self, name: str) -> bytes | None:
        reply = await self._ask("GET", name)
        return None if reply.status == HTTPStatus.NOT_FOUND else self._good(reply).body

    async def put(self, name: str, data: bytes) -> None:
        self._good(await self._ask("PUT", name, data))

    async def exists(self, name: str) -> bool:
        reply = await self._ask("HEAD", name)
        return reply.status != HTTPStatus.NOT_FOUND and bool(self._good(reply))

    async def delete(self, name: str) -> None:
        reply = await self._ask("DELETE", name)
        if reply.status != HTTPStatus.NOT_FOUND:
            self._good(reply)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        query = {"list-type": "2", "prefix": prefix}
        while True:
            page = ET.fromstring(self._good(await self._ask("GET", "", query=query)).body)
            space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""
            for one in page.iterfind(f"{space}Contents/{space}Key"):
                yield one.text or ""
            token = page.findtext(f"{space}NextContinuationToken")
            if not token:
                return
            query["continuation-token"] = token

    async def make_bucket(self) -> None:
        """One that is there stays as it is."""
        self._good(await self._ask("PUT", ""))

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    # -- one request ----------------------------------------------------------------------------------------------
    async def _ask(self, method: str, name: str, data: bytes = b"", query: Mapping[str, str] | None = None) -> _Reply:
        path = quote(f"/{self._settings.bucket}" + (f"/{name}" if name else ""))
        asked = urlencode(sorted((query or {}).items()), quote_via=quote)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._try, method, path, asked, data)

    def _try(self, method: str, path: str, query: str, data: bytes) -> _Reply:
        """Each of these may be done twice. Raises BackupsDown."""
        words = ""
        for _ in range(TRIES):
            try:
                reply = self._send(method, path, query, data)
            except (OSError, http.client.HTTPException) as error:
                words = " ".join(str(error).split())[:200] or type(error).__name__
                continue
            if reply.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return reply
            words = _reason(reply)
        raise BackupsDown(f"The store of backups {self._where} does not answer ({words}).")

    def _send(self, method: str, path: str, query: str, data: bytes) -> _Reply:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        target, headers = f"{path}?{query}" if query else path, self._headers(method, path, query, data)
        try:
            connection.request(method, target, data, headers)
            reply = connection.getresponse()
            answer = _Reply(reply.status, reply.read(ANSWER_MAX_BYTES))
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=ANSWERS_WITHIN_S, context=context)
        return http.client.HTTPConnection(host, port, timeout=ANSWERS_WITHIN_S)

    def _headers(self, method: str, path: str, query: str, data: bytes) -> dict[str, str]:
        """With the signature of all that matters, version 4."""
        at = datetime.fromtimestamp(self._clock.now_us() / 1_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(data).hexdigest()
        headers = {"host": self._url.netloc, "x-amz-content-sha256": digest, "x-amz-date": at}
        named = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"{method}\n{path}\n{query}\n{named}\n{_SIGNED}\n{digest}"
        scope = f"{at[:8]}/{self._settings.region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self._settings.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        who = f"Credential={self._settings.access_key}/{scope}, SignedHeaders={_SIGNED}, Signature={signature}"
        return {**headers, "authorization": f"AWS4-HMAC-SHA256 {who}"}

    def _good(self, reply: _Reply) -> _Reply:
        """Raises BackupsRefused."""
        if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise BackupsRefused(f"The store of backups {self._where} refused ({_reason(reply)}).")
        return reply


def _reason(reply: _Reply) -> str:
    try:
        found = ET.fromstring(reply.body)
        return found.findtext("Message") or found.findtext("Code") or f"status {reply.status}"
    except ET.ParseError:
        return f"status {reply.status}"
