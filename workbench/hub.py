"""Tell Hugging Face hub ids from local paths."""

import os
import re
from pathlib import PurePath

_ID = re.compile(r"\w[\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)  # the hub's own limits


def is_hub_id(text: str) -> bool:
    """Whether `text` names a hub repository (owner/name) rather than a path.

    If the folder `owner` exists here, `text` is a path: the hub is not queried for a local file that is missing.
    """
    return _ID.fullmatch(text) is not None and not os.path.isdir(PurePath(text).parent)
