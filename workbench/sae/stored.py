"""Which weights an autoencoder's folder has, without loading them. Imports nothing slow."""

from pathlib import Path

from cache.opening import checked_path
from workbench.provenance import file_hash

WEIGHTS_FILE = "sae_weights.safetensors"
DIGITS = 16


def stored_weights(root: Path, folder: Path) -> str:
    """Return the first `DIGITS` hexadecimal digits of the SHA-256 of the weights in a folder of `root`; "" without any.

    They are read once per version of the file.

    Raises:
        cache.opening.UnsafeFile: if there is a link on the way, or something else than a file.
    """
    try:
        return file_hash(checked_path(root, folder / WEIGHTS_FILE))[:DIGITS]
    except (FileNotFoundError, NotADirectoryError):
        return ""
