"""Providers of object storage: how their URLs begin, which variables name their servers and keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Provider:
    """A provider. protocols: of its URLs. form: of such a URL. holds: what it calls the folder of all keys.

    version: what an answer tells versions of an object apart by. endpoints: variables that name another server, the
    last for messages. credentials: variables as messages name them. settings: those another value of which needs
    another client.
    """

    protocols: tuple[str, ...]
    form: str
    holds: str
    version: Literal["e_tag", "version"]
    endpoints: tuple[str, ...]
    credentials: str
    settings: tuple[str, ...]


S3 = Provider(
    protocols=("s3",),
    form="s3://BUCKET/FOLDER",
    holds="bucket",
    version="e_tag",
    endpoints=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    credentials="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    settings=("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION"),
)
GCS = Provider(
    protocols=("gs", "gcs"),
    form="gs://BUCKET/FOLDER",
    holds="bucket",
    version="version",  # a generation; its e_tags are for readers alone
    endpoints=("GOOGLE_BASE_URL",),
    credentials="GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT or GOOGLE_BEARER_TOKEN",
    settings=(
        *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
        *("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"),
    ),
)
AZURE = Provider(
    protocols=("az", "azure", "abfs", "abfss", "adl"),
    form="az://CONTAINER/FOLDER",
    holds="container",
    version="e_tag",
    endpoints=("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
    credentials="AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY or AZURE_CLIENT_ID",
    settings=(
        *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_TOKEN"),
        *("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_STORAGE_USE_EMULATOR"),
    ),
)
PROVIDERS = {protocol: provider for provider in (S3, GCS, AZURE) for protocol in provider.protocols}
"""By protocol."""


def provider_of(url: str) -> Provider | None:
    """The provider of a URL; None for a protocol that is somebody else's."""
    return PROVIDERS.get(url.partition("://")[0])
