"""One JSON request over HTTP: its answer, or why there is none. Proxies and redirects are not followed."""

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from negtraj_dagster.errors import SettingsError

PATH = "/chat/completions"
CHUNK_BYTES = 1 << 16
MAX_BYTES = 1 << 26
"""A turn is far shorter; a server that sends more is no chat server."""


@dataclass(frozen=True)
class Address:
    """Where a chat server is."""

    is_secure: bool
    host: str
    port: int | None
    path: str
    url: str

    @classmethod
    def parse(cls, base_url: str) -> "Address":
        """The address of a base URL.

        Raises:
            SettingsError: it is no such URL, or holds what must not reach logs.
        """
        try:
            parts = urlsplit(base_url)
            port = parts.port
        except ValueError:
            raise SettingsError("base_url: no URL; write one such as http://localhost:8000/v1") from None
        if parts.username or parts.password or parts.query or parts.fragment:
            raise SettingsError(
                "base_url: a user, password or query stands in it; leave them out, and name the key's variable in api_key_env"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"base_url = {base_url!r}: expected http:// or https://, a host, and a path such as /v1")
        path = parts.path.rstrip("/").removesuffix(PATH) + PATH
        return cls(parts.scheme == "https", parts.hostname, port, path, f"{parts.scheme}://{parts.netloc}{path}")


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    text: str


Exchange = Reply | str
"""An answer, or why there is none."""


def post_json(address: Address, body: Mapping[str, Any], *, key: str | None, timeouts_s: tuple[float, float]) -> Exchange:
    """Send a request and read its answer.

    Args:
        address: where.
        body: of the request.
        key: sent as a bearer token.
        timeouts_s: until the connection stands, and from then until the answer is whole.
    """
    connect_s, read_s = timeouts_s
    connection = _connection(address, connect_s)
    step = f"connecting took more than {connect_s:g} s"
    try:
        connection.connect()
        step = f"no whole answer in {read_s:g} s"
        deadline = time.monotonic() + read_s
        _limit(connection, deadline)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST", address.path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        content = _read(connection, response, deadline)
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
    except TimeoutError:
        return step
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        connection.close()


def _connection(address: Address, timeout_s: float) -> http.client.HTTPConnection:
    if address.is_secure:
        return http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s, context=ssl.create_default_context())
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)


def _limit(connection: http.client.HTTPConnection, deadline: float) -> None:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    if connection.sock is not None:
        connection.sock.settimeout(left_s)


def _read(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float) -> str:
    """The whole answer; a server that sends a byte now and then is not waited for beyond the deadline."""
    chunks, n_bytes = [], 0
    while chunk := response.read1(CHUNK_BYTES):
        chunks.append(chunk)
        n_bytes += len(chunk)
        if n_bytes > MAX_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MAX_BYTES} bytes")
        _limit(connection, deadline)
    if response.length:  # read1 does not say that the connection broke off
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(chunks).decode("utf-8")
