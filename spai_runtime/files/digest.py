"""The digest that identifies a file."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Compute the digest of a file.

    :returns: the SHA-256 of its content, 64 hexadecimal digits
    :raises OSError: it cannot be read
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
