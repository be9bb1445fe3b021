"""Objects at a URL: S3, Google Cloud Storage and Azure through obstore, with its errors in one line.

A write has a condition: that the object is still the one that was read, or that there is none. So of two writers that
have read the same, one learns that it was too late.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.remote.secrets import check_address

Tag = dict[str, str]
"""What identifies a version of an object to its server."""

CHUNK = 8 << 20  # bytes of an object that are in memory at a time, in each of a few requests
RETRIES = 6
PATIENCE = timedelta(seconds=60)  # in which a request is tried again
READ_TIMEOUT = timedelta(seconds=120)  # without an answer; a chunk is sent in that time
_AT_A_TIME = 4
_URL = re.compile(r"(s3|gs|az):/+([^/]+)/?(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PREFIX = re.compile(r"(?!\.{1,2}(?:/|$))(?:(?!/\.{1,2}(?:/|$))[^\x00-\x1f\x7f])*")
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}
_NO_CREDENTIALS = ("169.254.", "MissingAccount", "Account must be specified")  # the address is of a machine's own role
_REFUSED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; of a profile: "
    'eval "$(aws configure export-credentials --format env)"; of a public bucket: AWS_SKIP_SIGNATURE=true',
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}


class Changed(Exception):
    """The object is not the one that was read."""


@dataclass(frozen=True)
class Found:
    """An object: its bytes, its version, and when that was written by the server's clock."""

    data: bytes
    tag: Tag
    modified: datetime


def address(location: str | PathLike[str]) -> str:
    """Return the URL that a location is, or an empty text for a path. A Path has made one slash of two."""
    match = _URL.fullmatch(str(location))
    return "/".join([f"{match[1]}://{match[2]}", *filter(None, match[3].split("/"))]) if match else ""


class Objects:
    """The objects under a URL, by the rest of their keys. Every failure is a StoreError, but where they say otherwise.

    Credentials come from the environment or the machine's role, as the tools of each cloud find them.
    """

    def __init__(self, url: str) -> None:
        check_address(f"the URL of {url.partition('://')[0]}", url)
        self.url = url
        self._scheme, _, place = url.partition("://")
        self._bucket, _, self._prefix = place.partition("/")
        if not _BUCKET.fullmatch(self._bucket) or not _PREFIX.fullmatch(self._prefix):
            raise ConfigError(f"{url} is no place for objects", f"such as {self._scheme}://BUCKET/PLACE")

    @cached_property
    def _api(self) -> Any:
        try:
            import obstore.exceptions
            import obstore.store
        except ImportError as error:
            hint = "pip install 'stepsearch-data[cloud]'"
            raise ConfigError(f"{self.url} needs the package obstore", hint) from error
        return obstore

    @cached_property
    def _store(self) -> Any:
        stores = self._api.store
        kind = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[self._scheme]
        with self._told():
            return kind(
                self._bucket,
                prefix=self._prefix or None,
                client_options={
                    "allow_http": True,  # of an endpoint that the user has set
                    "connect_timeout": timedelta(seconds=10),
                    "read_timeout": READ_TIMEOUT,
                    "timeout": timedelta(days=1),  # a whole object is read in one request
                },
                retry_config={"max_retries": RETRIES, "retry_timeout": PATIENCE},
            )

    def read(self, key: str, most: int) -> Found | None:
        """Return an object of at most `most` bytes, or None where there is none."""
        with self._told():
            try:
                found = self._api.get(self._store, key)
                if found.meta["size"] > most:
                    raise StoreError(f"{self.url}/{key} has more than {most:,} bytes")
                return Found(bytes(found.bytes()), _tag(found.meta), found.meta["last_modified"])
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None

    def write(self, key: str, data: bytes | Path, tag: Tag | None) -> Tag:
        """Replace the version of an object that has this tag, or make one where there is none. Raises Changed."""
        late = (self._api.exceptions.AlreadyExistsError, self._api.exceptions.PreconditionError, FileNotFoundError)
        with self._told():
            try:
                return _tag(self._api.put(self._store, key, data, mode=dict(tag) if tag else "create"))
            except late as error:
                self._check_bucket(error)
        whole = data if isinstance(data, bytes) else data.read_bytes()
        there = self.read(key, len(whole)) if (self.head(key) or {}).get("size") == len(whole) else None
        if there and there.data == whole:  # a first try came through, but not the answer to it
            return there.tag
        raise Changed

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes. Raises FileNotFoundError."""
        with self._told():
            yield from self._api.get(self._store, key).stream(min_chunk_size=CHUNK)

    def download(self, key: str, path: Path) -> Tag:
        """Write an object to a new file. Raises FileNotFoundError, OSError."""
        with self._told(), open(path, "xb") as file:
            found = self._api.get(self._store, key)
            file.writelines(found.stream(min_chunk_size=CHUNK))
            return _tag(found.meta)

    def upload(self, path: Path, key: str) -> Tag:
        """Make an object of a file, whatever was there. Others see it when it is whole."""
        with self._told():
            return _tag(self._api.put(self._store, key, path, chunk_size=CHUNK, max_concurrency=_AT_A_TIME))

    def head(self, key: str) -> dict[str, Any] | None:
        """Return what the server says of an object (`size`, `e_tag`, …), or None where there is none."""
        with self._told():
            try:
                return dict(self._api.head(self._store, key))
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None

    def listed(self, folder: str = "") -> dict[str, dict[str, Any]]:
        """Return what the server says of every object in a folder, by key."""
        with self._told():
            found = self._api.list(self._store, folder or None)
            return {meta["path"]: dict(meta) for page in found for meta in page}

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        with self._told():
            self._api.delete(self._store, list(keys))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise StoreError for obstore's errors, of which each holds the server's whole answer."""
        try:
            yield
        except (StoreError, ConfigError, FileNotFoundError):
            raise
        except Exception as error:
            if not type(error).__module__.startswith("obstore") and "Debug source" not in str(error):
                raise
            raise self._explained(str(error)) from error

    def _check_bucket(self, error: Exception) -> None:
        """Raise StoreError where an object is missing because its bucket is."""
        if _said(str(error)) & _NO_BUCKET:
            raise self._explained(str(error)) from error

    def _explained(self, text: str) -> StoreError:
        said = _said(text)
        if any(sign in text for sign in _NO_CREDENTIALS):
            return StoreError(f"there are no credentials for {self.url}", f"set {_CREDENTIALS[self._scheme]}")
        if said & _NO_BUCKET:
            return StoreError(f"there is no bucket {self._bucket} for {self.url}", "make it first, or check the name")
        if said & _REFUSED:
            reason = ", ".join(sorted(said))
            return StoreError(f"{self.url} refuses these credentials ({reason})", _CREDENTIALS[self._scheme])
        words = ", ".join(sorted(said)) or text.partition("\n")[0].rpartition(" - ")[2].removeprefix("HTTP error: ")
        where = " and AWS_ENDPOINT_URL, AWS_REGION" if self._scheme == "s3" else ""
        return StoreError(
            f"{self.url} cannot be used: {words}", f"check the network{where}; the same command goes on then"
        )


def _said(text: str) -> set[str]:
    """Return the status and the code of a server's answer; the rest of it is not for messages."""
    found = (re.search(r"status code: (\d{3})", text), re.search(r"<Code>(\w{1,60})</Code>", text))
    return {match[1] for match in found if match}


def _tag(meta: Any) -> Tag:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}
