"""Buckets and containers of S3, Google Cloud Storage and Azure: one request a call, through obstore."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, Literal

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotFoundError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from amn_dist.errors import ShardError
from amn_dist.storage.aws import read_settings
from amn_dist.storage.providers import AZURE, GCS, S3, Provider
from amn_dist.storage.retry import read_answer
from amn_dist.variables import number

TIMEOUT_S = "AMN_STORAGE_TIMEOUT_S"
"""Variable: seconds without a byte after which an answer is given up and asked for again; 60 without it."""
PUT_S = 1800
"""Most seconds an upload may take; it is one request, so that no object is ever half there."""
UNKNOWN = "status code: 501"
"""What a storage answers that knows no conditional writes, or no copies."""

Client = S3Store | GCSStore | AzureStore


class BucketObjects:
    """The objects of a bucket or container. Keys are without a leading slash.

    make: a client with more options than these. version: what of an answer tells versions of an object apart.
    """

    def __init__(self, make: Callable[..., Client], *, plain: bool, version: Literal["e_tag", "version"]) -> None:
        timeout = timedelta(seconds=number(TIMEOUT_S, 60, least=0.1, most=PUT_S))
        options: dict[str, Any] = {"connect_timeout": timedelta(seconds=10), "allow_http": plain}
        # No tries of its own: they are counted in one place, retry.py.
        retries = {"max_retries": 0}
        longest = timedelta(seconds=PUT_S)
        reading = {**options, "read_timeout": timeout, "timeout": longest}
        self._reader = make(client_options=reading, retry_config=retries)
        self._writer = make(client_options={**options, "timeout": longest}, retry_config=retries)
        self._version = version

    def children(self, key: str) -> tuple[dict[str, int], list[str]]:
        listing = obstore.list_with_delimiter(self._reader, key or None)
        files = {entry["path"].rsplit("/", 1)[-1]: entry["size"] for entry in listing["objects"]}
        return files, [prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in listing["common_prefixes"]]

    def size(self, key: str) -> int:
        return int(obstore.head(self._reader, key)["size"])

    def get(self, key: str) -> bytes:
        return obstore.get(self._reader, key).bytes().to_bytes()

    def get_range(self, key: str, start: int, size: int) -> bytes:
        return obstore.get_range(self._reader, key, start=start, length=size).to_bytes()

    def put(self, key: str, content: bytes | memoryview) -> None:
        obstore.put(self._writer, key, content, use_multipart=False)

    def copy(self, key: str, other: str) -> None:
        try:
            obstore.copy(self._writer, key, other)
        except GenericError as error:
            if UNKNOWN not in str(error):
                raise
            raise NotImplementedError from error

    def tagged(self, key: str) -> tuple[bytes, str]:
        answer = obstore.get(self._reader, key)
        return answer.bytes().to_bytes(), str(answer.meta[self._version])

    def swap(self, key: str, content: bytes, tag: str | None) -> str | None:
        mode: Any = "create" if tag is None else {self._version: tag}
        try:
            return str(obstore.put(self._writer, key, content, mode=mode)[self._version])
        except (AlreadyExistsError, PreconditionError, NotFoundError):
            return None
        except GenericError as error:
            if UNKNOWN not in str(error):
                raise
            return str(obstore.put(self._writer, key, content, use_multipart=False)[self._version])

    def delete(self, key: str) -> None:
        obstore.delete(self._writer, key)


def open_bucket(url: str, provider: Provider) -> tuple[BucketObjects, str]:
    """The client of a URL's bucket under the present variables, and the key the URL means there.

    Raises ShardError when it names no bucket, or the variables do not say what a client needs.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket:
        raise ShardError(f"{url}: names no {provider.holds}; expected {provider.form}")
    names = (*provider.settings, *provider.endpoints, TIMEOUT_S)
    try:
        return _client(provider, bucket, tuple(os.environ.get(name, "") for name in names)), key.strip("/")
    except BaseError as error:
        answer = read_answer(error)[0]
        raise ShardError(f"{url}: its storage cannot be used ({answer}); set {provider.credentials}") from error


@lru_cache(64)
def _client(provider: Provider, bucket: str, variables: tuple[str, ...]) -> BucketObjects:
    """variables: what it depends on, for the cache."""
    make, endpoint = MAKERS[provider](bucket, next(filter(None, map(os.environ.get, provider.endpoints)), ""))
    return BucketObjects(make, plain=endpoint.startswith("http://"), version=provider.version)


def _s3(bucket: str, endpoint: str) -> tuple[Callable[..., Client], str]:
    """An endpoint may also stand in a file of settings."""
    settings = read_settings(os.environ)
    config: Any = {"checksum_algorithm": "sha256", **settings}
    return partial(S3Store, bucket, config=config), settings.get("endpoint", "")


def _gcs(bucket: str, endpoint: str) -> tuple[Callable[..., Client], str]:
    return partial(GCSStore, bucket), endpoint


def _azure(bucket: str, endpoint: str) -> tuple[Callable[..., Client], str]:
    """The bucket may name the account too."""
    return partial(AzureStore.from_url, f"abfs://{bucket}"), endpoint


MAKERS = {S3: _s3, GCS: _gcs, AZURE: _azure}
"""A bucket and the endpoint that variables name, to a client still without options and the endpoint that is taken."""
