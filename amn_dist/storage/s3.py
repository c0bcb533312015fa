"""S3 and what speaks like it: one request a call, through obstore. Credentials as other AWS programs find them."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError, NotFoundError, PreconditionError
from obstore.store import S3Store

from amn_dist.variables import number

TIMEOUT_S = "AMN_STORAGE_TIMEOUT_S"
"""Variable: seconds without a byte after which an answer is given up and asked for again; 60 without it."""
PUT_S = 1800
"""Most seconds an upload may take; it is one request, so that no object is ever half there."""
UNKNOWN = "status code: 501"
"""What a storage answers that knows no conditional writes, or no copies."""
FROM_FILES = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url")
SETTINGS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", TIMEOUT_S)
"""Variables another value of which needs another client."""


class S3Objects:
    """A bucket. Keys are without a leading slash."""

    def __init__(self, bucket: str, settings: Mapping[str, str]) -> None:
        timeout = timedelta(seconds=number(TIMEOUT_S, 60, least=0.1, most=PUT_S))
        plain = settings.get("endpoint", "").startswith("http://")
        options: dict[str, Any] = {"connect_timeout": timedelta(seconds=10), "allow_http": plain}

        def store(**more: Any) -> S3Store:
            # No tries of its own: they are counted in one place, patience.py.
            return S3Store(
                bucket,
                client_options={**options, **more},  # type: ignore[arg-type]
                retry_config={"max_retries": 0},
                checksum_algorithm="sha256",
                **settings,  # type: ignore[arg-type]
            )

        self._reader = store(read_timeout=timeout, timeout=timedelta(seconds=PUT_S))
        self._writer = store(timeout=timedelta(seconds=PUT_S))

    def children(self, key: str) -> tuple[dict[str, int], list[str]]:
        found = obstore.list_with_delimiter(self._reader, key or None)
        files = {entry["path"].rsplit("/", 1)[-1]: entry["size"] for entry in found["objects"]}
        return files, [prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in found["common_prefixes"]]

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
        found = obstore.get(self._reader, key)
        return found.bytes().to_bytes(), str(found.meta["e_tag"])

    def swap(self, key: str, content: bytes, tag: str | None) -> str | None:
        mode: Any = "create" if tag is None else {"e_tag": tag}
        try:
            return str(obstore.put(self._writer, key, content, mode=mode)["e_tag"])
        except (AlreadyExistsError, PreconditionError, NotFoundError):
            return None
        except GenericError as error:
            if UNKNOWN not in str(error):
                raise
            return str(obstore.put(self._writer, key, content, use_multipart=False)["e_tag"])

    def delete(self, key: str) -> None:
        obstore.delete(self._writer, key)


def s3_bucket(bucket: str) -> S3Objects:
    """The client of a bucket under the present variables."""
    return _client(bucket, tuple(os.environ.get(name, "") for name in SETTINGS))


@lru_cache(64)
def _client(bucket: str, variables: tuple[str, ...]) -> S3Objects:
    return S3Objects(bucket, read_settings(os.environ))


def read_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Endpoint, region and keys from the files of a profile; obstore reads the variables, which come first, and asks
    the machine's role when there are no keys."""
    profile = variables.get("AWS_PROFILE") or "default"
    folder = Path(variables.get("HOME", "~")).expanduser() / ".aws"
    files = configparser.ConfigParser(interpolation=None, default_section="")
    files.read(variables.get("AWS_CONFIG_FILE") or folder / "config")
    files.read(variables.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials")
    found: dict[str, str] = {}
    for section in (f"profile {profile}", profile):
        if files.has_section(section):
            found |= {name: files[section][name] for name in FROM_FILES if name in files[section]}
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or found.get("endpoint_url")
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or found.get("region") or "us-east-1"
    settings = {"region": region, **({"endpoint": endpoint} if endpoint else {})}
    if not variables.get("AWS_ACCESS_KEY_ID") and "aws_access_key_id" in found:
        keys = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
        keys["aws_session_token"] = "session_token"
        settings |= {name: found[key] for key, name in keys.items() if key in found}
    return settings
