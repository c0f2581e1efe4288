"""The address of the lab page for a clip and edits, for links from other pages.

The query's names: `prompt`, `lyrics`, `seed`, `duration` (seconds), `steps`, `guidance`, and `edits`, a JSON list. Each
edit has a `kind` and the fields of its class in `analyses/lab/request.py`, such as
`{"kind": "patch", "sites": ["tf3.cross_attn"], "prompt": "a fast song"}`,
`{"kind": "ablate", "sites": ["tf3.cross_attn"]}`,
`{"kind": "steer", "pack": "mood", "strength": 2}` or
`{"kind": "feature", "sae": "tf4.cross_attn", "feature": 7, "sites": ["tf4.cross_attn"], "strength": 1}`.
Instead of a prompt, `clip` is the number of one of the study's clips.
"""

from collections.abc import Sequence
from typing import Any

from analyses.lab.request import request_of
from dashboards.links import address, write_query

PATH = "/lab"


def lab_address(
    prompt: str, seed: int = 0, lyrics: str = "", edits: Sequence[dict[str, Any]] = (), **settings: float
) -> str:
    """Return the address of the lab with a clip and edits, which are plain data.

    Raises:
        UserError: if the lab would refuse them.
    """
    asked = request_of({"prompt": prompt, "seed": seed, "lyrics": lyrics, "edits": edits, **settings})
    return address(PATH) + write_query(dict(asked.query()))
