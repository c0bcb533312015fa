"""As much of Google Cloud Storage and Azure Blob Storage as the client asks for, in memory, on loopback.

Written after their reference pages: the XML API of the one, the Blob service of the other. What a server of theirs does
beyond that, signatures above all, is not here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 3
"""Names in an answer to a request for a list, so that lists take several."""
MODIFIED = "Mon, 30 Nov 2026 08:00:00 GMT"
Headers = dict[str, str]
Answer = tuple[int, bytes, Headers]


@dataclass
class Cloud:
    """Buckets of objects. An object: its bytes and its version, a number that no two puts share."""

    buckets: dict[str, dict[str, tuple[bytes, int]]] = field(default_factory=dict)
    puts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, bucket: str, key: str, content: bytes) -> int:
        self.puts += 1
        self.buckets[bucket][key] = (content, self.puts)
        return self.puts

    def listing(self, bucket: str, prefix: str, after: str) -> tuple[list[tuple[str, int]], list[str], str]:
        """Objects (bytes) and folders right below a prefix, those of a page, and the last name of it if more follow."""
        names = {}
        for key, (content, _) in self.buckets[bucket].items():
            if key.startswith(prefix):
                head, slash, _ = key[len(prefix) :].partition("/")
                names[prefix + head + slash] = len(content)
        page = sorted(name for name in names if name > after)
        objects = [(name, names[name]) for name in page[:PAGE] if not name.endswith("/")]
        folders = [name for name in page[:PAGE] if name.endswith("/")]
        return objects, folders, page[PAGE - 1] if len(page) > PAGE else ""


class CloudHandler(BaseHTTPRequestHandler):
    """Answers requests for a cloud. Subclasses speak as a provider does."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # else headers and body are two packets, and the second waits for an acknowledgement
    cloud: Cloud

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.cloud.lock:
            status, content, headers = self.respond(body)
        self.send_response(status)
        for name, value in {"last-modified": MODIFIED, "content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def respond(self, body: bytes) -> Answer:
        raise NotImplementedError

    def query(self, name: str) -> str:
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def read(self, content: bytes, headers: Headers) -> Answer:
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if span is None:
            return 200, content, headers
        start, stop = int(span[1]), min(int(span[2]) + 1, len(content))
        shown = f"bytes {start}-{stop - 1}/{len(content)}"
        return 206, content[start:stop], {**headers, "content-range": shown}

    def log_message(self, format: str, *args: object) -> None:
        return None


def refusal(status: int, code: str) -> Answer:
    """An error as both providers write it."""
    return status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>'.encode(), {}


class GoogleHandler(CloudHandler):
    """The XML API. /BUCKET/KEY; versions are generations."""

    def respond(self, body: bytes) -> Answer:
        if self.headers.get("authorization") != "Bearer a-token":
            return refusal(401, "AuthenticationRequired")
        bucket, _, key = unquote(urlsplit(self.path).path)[1:].partition("/")
        objects = self.cloud.buckets.get(bucket)
        if objects is None:
            return refusal(404, "NoSuchBucket")
        if not key:
            return self.listed(bucket)
        if self.command == "PUT":
            return self.put(bucket, key, body)
        if key not in objects:
            return refusal(404, "NoSuchKey")
        if self.command == "DELETE":
            del objects[key]
            return 204, b"", {}
        content, version = objects[key]
        return self.read(content, stamped(version))

    def put(self, bucket: str, key: str, body: bytes) -> Answer:
        objects = self.cloud.buckets[bucket]
        expected = self.headers.get("x-goog-if-generation-match")
        if expected is not None and int(expected) != objects.get(key, (b"", 0))[1]:
            return refusal(412, "PreconditionFailed")
        source = unquote(self.headers.get("x-goog-copy-source", "")).partition("/")[2]
        if source and source not in objects:
            return refusal(404, "NoSuchKey")
        return 200, b"", stamped(self.cloud.put(bucket, key, objects[source][0] if source else body))

    def listed(self, bucket: str) -> Answer:
        objects, folders, last = self.cloud.listing(bucket, self.query("prefix"), self.query("continuation-token"))
        parts = [
            f"<Contents><Key>{escape(name)}</Key><Size>{size}</Size><ETag>&quot;x&quot;</ETag>"
            "<LastModified>2026-11-30T08:00:00.000Z</LastModified></Contents>"
            for name, size in objects
        ]
        parts += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders]
        parts += [f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"] if last else []
        return 200, f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode(), {}


def stamped(version: int) -> Headers:
    # E_tags that never change: nothing may be told apart by them.
    return {"etag": '"same"', "x-goog-generation": str(version)}


class AzureHandler(CloudHandler):
    """The Blob service. /ACCOUNT/CONTAINER/KEY; versions are e_tags."""

    def respond(self, body: bytes) -> Answer:
        account, _, path = unquote(urlsplit(self.path).path)[1:].partition("/")
        if not self.headers.get("authorization", "").startswith(f"SharedKey {account}:"):
            return refusal(403, "AuthenticationFailed")
        container, _, key = path.partition("/")
        blobs = self.cloud.buckets.get(container)
        if blobs is None:
            return refusal(404, "ContainerNotFound")
        if self.query("comp") == "list":
            return self.listed(container)
        if self.query("comp") == "batch":
            return self.removed(blobs, body)
        if self.command == "PUT":
            return self.put(container, key, body)
        if key not in blobs:
            return refusal(404, "BlobNotFound")
        content, version = blobs[key]
        return self.read(content, tagged(version))

    def put(self, container: str, key: str, body: bytes) -> Answer:
        blobs = self.cloud.buckets[container]
        if self.headers.get("if-none-match") == "*" and key in blobs:
            return refusal(409, "BlobAlreadyExists")
        expected = self.headers.get("if-match")
        if expected is not None and (key not in blobs or expected != tagged(blobs[key][1])["etag"]):
            return refusal(412, "ConditionNotMet")
        if "x-ms-copy-source" not in self.headers:
            return 201, b"", tagged(self.cloud.put(container, key, body))
        source = unquote(urlsplit(self.headers["x-ms-copy-source"]).path).split("/", 3)[3]
        if source not in blobs:
            return refusal(404, "BlobNotFound")
        return 202, b"", {**tagged(self.cloud.put(container, key, blobs[source][0])), "x-ms-copy-status": "success"}

    def removed(self, blobs: dict[str, tuple[bytes, int]], body: bytes) -> Answer:
        """The answers to DELETE requests in the parts of one."""
        parts = []
        for number, path in enumerate(re.findall(rb"^DELETE /[^/]+/[^/]+/(\S+) ", body, re.MULTILINE)):
            gone = blobs.pop(unquote(path.decode()), None) is None
            status = "404 The specified blob does not exist." if gone else "202 Accepted"
            parts.append(
                f"--answers\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status}\r\n"
                + ("x-ms-error-code: BlobNotFound\r\n" if gone else "")
                + "x-ms-version: 2023-11-03\r\n\r\n"
            )
        content = "".join([*parts, "--answers--\r\n"]).encode()
        return 202, content, {"content-type": "multipart/mixed; boundary=answers"}

    def listed(self, container: str) -> Answer:
        objects, folders, last = self.cloud.listing(container, self.query("prefix"), self.query("marker"))
        parts = [
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified><Etag>x</Etag>"
            f"<Content-Length>{size}</Content-Length><Content-Type>a/b</Content-Type></Properties></Blob>"
            for name, size in objects
        ]
        parts += [f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in folders]
        page = f"<Blobs>{''.join(parts)}</Blobs><NextMarker>{escape(last)}</NextMarker>"
        return 200, f'<?xml version="1.0"?><EnumerationResults>{page}</EnumerationResults>'.encode(), {}


def tagged(version: int) -> Headers:
    return {"etag": f'"0x{version:X}"'}


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port of a server of this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
