"""The folder of what is fetched once, and of what memory does not hold while it is used."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """$ADNLIB_CACHE, else the user's cache folder."""
    return Path(os.environ.get("ADNLIB_CACHE") or platformdirs.user_cache_dir("adnlib"))
