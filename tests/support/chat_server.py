"""A local chat server for tests: what it answers is a function of the request and of how many came before."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A response; `cut` ends the connection in the middle of the body, `stall_s` waits before anything is sent."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    stall_s: float = 0.0


@dataclass
class ChatServer:
    """What came in: paths, headers, bodies; `most_at_once` requests were in work together."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0


def completion(content: str | None, *, finish: str = "stop", n_tokens: int = 3, **message: Any) -> Answer:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return Answer(body={"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": n_tokens}})


@contextmanager
def chat_server(answer: Callable[[dict[str, Any], int], Answer]) -> Iterator[ChatServer]:
    """Serve on a free port of this machine; `answer` gets the request's body and its number from 0."""
    lock, stopped = threading.Lock(), threading.Event()
    n_now = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal n_now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(seen.requests)
                seen.requests.append(body)
                seen.headers.append({name.lower(): value for name, value in self.headers.items()})
                seen.paths.append(self.path)
                n_now += 1
                seen.most_at_once = max(seen.most_at_once, n_now)
            try:
                self._send(answer(body, number))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up
            finally:
                with lock:
                    n_now -= 1

        def _send(self, response: Answer) -> None:
            stopped.wait(response.stall_s)
            raw = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2] if response.cut else raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = ChatServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
