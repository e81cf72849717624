"""The digest that files are known by."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """:returns: the SHA-256 of a file's content, 64 hexadecimal digits
    :raises OSError: it cannot be read
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
