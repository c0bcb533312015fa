"""Endpoint, region and keys of S3 as other AWS programs find them."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

FROM_FILES = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url")
KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
"""What the files call the keys, and what the client does."""


def read_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Endpoint, region and keys from the files of a profile; obstore reads the variables, which come first, and asks
    the machine's role when there are no keys."""
    profile = _read_profile(variables)
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or profile.get("endpoint_url")
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1"
    settings = {"region": region, **({"endpoint": endpoint} if endpoint else {})}
    if not variables.get("AWS_ACCESS_KEY_ID") and "aws_access_key_id" in profile:
        settings |= {name: profile[key] for key, name in KEYS.items() if key in profile}
    return settings


def _read_profile(variables: Mapping[str, str]) -> dict[str, str]:
    name = variables.get("AWS_PROFILE") or "default"
    folder = Path(variables.get("HOME", "~")).expanduser() / ".aws"
    files = configparser.ConfigParser(interpolation=None, default_section="")
    files.read(variables.get("AWS_CONFIG_FILE") or folder / "config")
    files.read(variables.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials")
    profile: dict[str, str] = {}
    for section in (f"profile {name}", name):
        if files.has_section(section):
            profile |= {key: files[section][key] for key in FROM_FILES if key in files[section]}
    return profile
