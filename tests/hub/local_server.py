"""A web server on this machine that misbehaves as told, and a row of the table whose file it serves."""

from __future__ import annotations

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from basicsr_plugins.hub.published import PublishedModel

ARGUMENTS = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}


class Site:
    """What is served, and how. Change the attributes between requests, or in ``before``, called with their number."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.etag, self.modified = '"one"', ""
        self.ranges = True
        self.heeds_if_range = True
        self.kind = "application/octet-stream"
        self.breaks: list = []  # per request: how many bytes come before the connection breaks; None: all
        self.length_off = 0  # what Content-Length says too much or too little
        self.answers: list = []  # per request: another status, or None
        self.pages: dict = {}  # by path: (status, headers, text)
        self.before = lambda number: None
        self.requests: list = []


def rows(site_url: str, **others) -> PublishedModel:
    """A row of the table for the file of a site."""
    given = {
        "name": "tiny", "network": "NAFNet", "task": "nothing", "file": "tiny.pth", "address": f"{site_url}/tiny.pth",
        "repository": "https://github.com/nobody/tiny", "licence": "MIT", "arguments": ARGUMENTS, **others,
    }  # fmt: skip
    return PublishedModel(**given)


@contextlib.contextmanager
def serving(site: Site):
    """Serve until the block ends; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            number = len(site.requests)
            site.requests.append((self.path, self.headers.get("Range")))
            site.before(number)
            path = self.path.split("?")[0]
            if path in site.pages:
                status, headers, text = site.pages[path]
                self.plain(status, headers, text.encode())
                return
            status = site.answers[number] if number < len(site.answers) else None
            if status:
                self.plain(status, {}, b"no")
                return
            self.file(number)

        def plain(self, status, headers, body):
            self.send_response(status)
            for key, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def file(self, number):
            start, wanted = 0, re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
            condition = self.headers.get("If-Range")
            current = not site.heeds_if_range or condition in (None, site.etag or "-", site.modified or "-")
            if wanted and site.ranges and current:
                start = int(wanted.group(1))
                if start >= len(site.body):
                    self.plain(416, {"Content-Range": f"bytes */{len(site.body)}"}, b"")
                    return
                self.send_response(206)
                total = len(site.body) + site.length_off
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            else:
                self.send_response(200)
            body = site.body[start:]
            self.send_header("Content-Type", site.kind)
            self.send_header("Content-Length", str(len(body) + site.length_off))
            for key, value in (("ETag", site.etag), ("Last-Modified", site.modified)):
                if value:
                    self.send_header(key, value)
            self.end_headers()
            stop = site.breaks[number] if number < len(site.breaks) else None
            with contextlib.suppress(OSError):
                self.wfile.write(body[:stop])
                self.wfile.flush()
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
