"""Local copies of objects at URLs, one for each version."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stepsearch_data.core.atomic import writing
from stepsearch_data.core.errors import StoreError
from stepsearch_data.core.files import cache_folder
from stepsearch_data.remote.objects import Objects


def copy_of(url: str) -> Path | None:
    """Return a copy of an object in the user's caches, or None where there is no object. Raises StoreError, OSError."""
    folder, _, name = url.rpartition("/")
    objects = Objects(folder)
    meta = objects.head(name)
    if meta is None:
        return None
    version = f"{url} {meta['e_tag'] or meta['last_modified']} {meta['size']}"
    path = cache_folder() / "files" / hashlib.sha256(version.encode()).hexdigest()[:32] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path, shared=True) as part:
            tag = objects.download(name, part)
            if tag.get("e_tag") != meta["e_tag"] or part.stat().st_size != meta["size"]:
                raise StoreError(f"{url} has changed while it was fetched", "run the same command again")
    return path
