"""Requests to storage that may fail for a while: tried again, within bounds, when trying again can help."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from amn_dist.errors import AmnError, ShardError, printable
from amn_dist.storage.providers import S3, provider_of
from amn_dist.variables import number

T = TypeVar("T")

RETRY_S = "AMN_STORAGE_PATIENCE_S"
"""Variable: seconds after which a request that keeps failing is given up; 300 without it."""
MOST_S = 86_400
"""The most it may be: a day."""
FIRST_S, LONGEST_S = 0.1, 15.0
"""The first pause between two tries, and the longest; each is drawn from the upper half of its length."""
SHORT_TRIES = 3
"""Times a body that ends early is asked for; a file that is short stays short."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers that another try may not get."""
PASSING_CODES = frozenset(
    {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling", "ConditionalRequestConflict"}
)
NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
"""What is missing when a storage says so: not an object."""
REFUSALS = {
    "RequestTimeTooSkewed": "the clock of this machine is off; set it (ntp), then run again",
    "NoSuchBucket": "there is no such bucket; check its name and {endpoint}",
    "ContainerNotFound": "there is no such container; check its name and {endpoint}",
    "ExpiredToken": "the credentials have expired; get new ones, then run again",
    "InvalidAccessKeyId": "the storage does not know these credentials; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not fit; check AWS_SECRET_ACCESS_KEY",
}
STATUSES = {
    301: "the bucket is in another region; set AWS_REGION",
    401: "check the credentials ({credentials})",
    403: "check the credentials, the policy of the bucket and the clock of this machine",
    507: "the storage is full; make room, then run again",
}


class ShortBody(Exception):
    """An answer ended before the bytes that were asked for."""


def retried(url: str, verb: str, request: Callable[[], T]) -> T:
    """What a request returns. verb: past participle for messages, such as `read`.

    Tried again with growing pauses after timeouts, broken connections, short bodies, 429 and 5xx.
    Raises FileNotFoundError for what is not there, and ShardError with URL, answer and advice for all else.
    """
    start, tries = time.monotonic(), 0
    limit = number(RETRY_S, 300, most=MOST_S)
    while True:
        tries += 1
        try:
            return request()
        except (AmnError, NotImplementedError):
            raise
        except Exception as error:  # every storage library has errors of its own
            answer, status, code = read_answer(error)
            if isinstance(error, FileNotFoundError) and code not in NO_BUCKET:
                raise FileNotFoundError(2, "not there", url) from error
            if not may_pass(error, status, code):
                raise ShardError(f"{url}: cannot be {verb} ({answer}); {advice(url, status, code)}") from error
            pause = min(FIRST_S * 2 ** (tries - 1), LONGEST_S) * random.uniform(0.5, 1.0)
            if time.monotonic() - start + pause > limit or (isinstance(error, ShortBody) and tries == SHORT_TRIES):
                waited = time.monotonic() - start
                raise ShardError(
                    f"{url}: cannot be {verb} ({answer}; {tries} tries in {waited:.0f} s); "
                    "the same command goes on when the storage answers again"
                ) from error
        time.sleep(pause)


def advice(url: str, status: int | None, code: str) -> str:
    """What to do about a refusal."""
    provider = provider_of(url) or S3
    text = REFUSALS.get(code) or STATUSES.get(status or 0) or "check the URL and the storage"
    return text.format(endpoint=provider.endpoints[-1], credentials=provider.credentials)


def read_answer(error: BaseException) -> tuple[str, int | None, str]:
    """What a storage library's error says: one line for people, HTTP status, and the storage's own code."""
    text = str(error).split("\n\nDebug source:")[0]
    status = re.search(r"status code: (\d{3})", text) or re.search(r"\b([45]\d\d), message=", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if status is None:
        source = re.search(r"kind: (Timeout|Connect|Request|Interrupted|Decode)\b", str(error))
        kinds = {"Timeout": "no answer in time", "Connect": "no connection", "Interrupted": "the body ended early"}
        said = kinds.get(source[1], "the connection broke") if source else printable(text, 160)
        return said or type(error).__name__, None, ""
    return f"{status[1]} {code[1] if code else ''}".strip(), int(status[1]), code[1] if code else ""


def may_pass(error: BaseException, status: int | None, code: str) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return False
    if status is not None:
        return status in PASSING or code in PASSING_CODES
    if isinstance(error, ShortBody | TimeoutError | ConnectionError | EOFError):
        return True
    broken = r"HTTP error|[Tt]imed? ?out|[Cc]onnection|IncompleteBody|Payload|Disconnected"
    return bool(re.search(broken, f"{type(error).__name__} {error}"))
