"""What is asked of the Hugging Face hub, and what is a path of this machine."""

import os
import re
from pathlib import PurePath

_ID = re.compile(r"\w[\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)  # the hub's own limits


def is_hub_id(text: str) -> bool:
    """Whether a text names a repository of the hub (owner/name) rather than a path.

    It is a path where its folder is here: the hub is not asked for what was meant to lie there.
    """
    return _ID.fullmatch(text) is not None and not os.path.isdir(PurePath(text).parent)
