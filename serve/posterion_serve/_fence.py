"""Starts HAProxy fenced in: loopback only, no open side doors, errors in our own shape.

Ray Serve writes HAProxy's configuration and runs ``RAY_SERVE_HAPROXY_BINARY_PATH`` with it, at
the start and at every reload. Two of the listeners it writes (Prometheus and the statistics
page) take all interfaces and ask for no credential. This script stands in the binary's place:
it rewrites the file that follows ``-f`` and then becomes HAProxy, with the same arguments and
the same process id, as Serve recognises its workers by both.

What is rewritten:

* the ``prometheus`` frontend and the ``stats`` page are taken out: nothing needs them, as Serve
  talks to HAProxy over its private admin socket;
* every remaining ``bind`` on all interfaces is put on 127.0.0.1; any other address than loopback
  or a Unix socket is refused, so that a new listener in a later Serve cannot slip through;
* the list of routes, which Serve tells anybody, is not told;
* failures that HAProxy or Serve answer by themselves (no replica, timeout, bad request) are
  problem+json with the right status.

It runs as a bare script under ``python -I -S``: only the standard library, nothing of Posterion.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

SECTIONS = ("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist")
OPEN_SECTIONS = ("frontend prometheus", "listen stats")
LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1
REASONS = {
    400: ("Bad Request", "The request is not well-formed HTTP."),
    404: ("Not Found", "Nothing is at this address. See /docs."),
    408: ("Request Timeout", "The request did not arrive completely in time; send it again."),
    500: ("Internal Server Error", "The gateway failed; its log has the reason."),
    502: ("Bad Gateway", "The replica that had the request ended before answering; send it again."),
    503: (
        "Service Unavailable",
        "No replica of the application is ready. Retry; `posterion serve status` says more.",
    ),
    504: ("Gateway Timeout", "The application did not answer in time."),
}
SERVE_FAILURES = (500, 503, 504)
"""Answered in plain text by Serve itself; the application's own answers are never that."""
_BIND = re.compile(r"^(?P<indent>\s*bind\s+)(?P<address>\S+)(?P<rest>.*)$")


def problem(status: int) -> str:
    """The problem details of a failure outside the application."""
    title, detail = REASONS[status]
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})


def _page(error_dir: str, status: int) -> str:
    return f"content-type application/problem+json file {error_dir}/{status}.json"


def error_page(status: int) -> str:
    """The raw HTTP answer that HAProxy gives by itself for ``status``."""
    title, body = REASONS[status][0], problem(status)
    retry = "Retry-After: 1\r\n" if status in (502, 503) else ""
    return (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\n"
        f"Cache-Control: no-store\r\n{retry}Content-Length: {len(body)}\r\n\r\n{body}"
    )


def _fenced_bind(line: str) -> str:
    match = _BIND.match(line)
    if match is None:
        return line
    address = match["address"]
    host, _, port = address.rpartition(":")
    if host in ("", "*", "0.0.0.0", "::", "[::]") and port:
        return f"{match['indent']}{LOOPBACK}:{port}{match['rest']}"
    local = address.startswith(("/", "unix@", "abns@"))
    if local or host in (LOOPBACK, "localhost", "::1", "[::1]"):
        return line
    raise ValueError(f"HAProxy would listen on {address!r}; only loopback is allowed")


def fence(config: str, error_dir: str) -> str:
    """HAProxy's configuration with every listener on loopback.

    Args:
        config: The file that Serve wrote.
        error_dir: Folder that holds the pages of :func:`error_page`, named ``STATUS.http``.

    Raises:
        ValueError: A listener that is neither on loopback nor on all interfaces.
    """
    kept: list[str] = []
    dropping = False
    for line in config.splitlines():
        words = line.split()
        if words and not line[0].isspace() and words[0] in SECTIONS:
            dropping = " ".join(words[:2]) in OPEN_SECTIONS
        if dropping or words[:1] == ["errorfile"] or words[:2] == ["http-response", "return"]:
            continue
        if words[:2] == ["http-request", "return"] and words[-2:] == ["if", "routes"]:
            line = f"    http-request return status 404 {_page(error_dir, 404)} if routes"
        kept.append(_fenced_bind(line))
        if words == ["frontend", "http_frontend"]:
            kept += [
                f"    http-response return status {status} hdr retry-after 1 "
                f"{_page(error_dir, status)} if {{ status {status} }} "
                f"{{ res.hdr(content-type) -m beg text/plain }}"
                for status in SERVE_FAILURES
            ]
        if words == ["defaults"]:
            kept += [f"    errorfile {status} {error_dir}/{status}.http" for status in REASONS]
    return "\n".join(_default_backend(kept)) + "\n"


def _default_backend(lines: list[str]) -> list[str]:
    """No application deployed: HAProxy's own 503 instead of a 404 that lists where to look."""
    fenced: list[str] = []
    inside = False
    for line in lines:
        if line and not line[0].isspace():
            inside = line.split() == ["backend", "default_backend"]
        if not (inside and line.split()[:2] == ["http-request", "return"]):
            fenced.append(line)
    return fenced


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def main(arguments: Sequence[str]) -> None:
    """Fence the configuration, then become HAProxy.

    Args:
        arguments: Path of the real binary, then HAProxy's own arguments.
    """
    os.umask(0o077)
    binary, *options = arguments
    if "-f" in options:
        path = Path(options[options.index("-f") + 1])
        for status in REASONS:
            _replace(path.parent / f"{status}.http", error_page(status))
            _replace(path.parent / f"{status}.json", problem(status))
        _replace(path, fence(path.read_text(), str(path.parent)))
    # Serve's proxy actor may be killed outright; HAProxy must not outlive it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(binary, [binary, *options])


if __name__ == "__main__":
    main(sys.argv[1:])
