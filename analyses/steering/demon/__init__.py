"""Packs of DEMON (github.com/daydreamlive/DEMON), read as vectors and written.

A pack is a safetensors file with one metadata entry, `steering_pack`, a JSON object. Its numbers are one `vector`
(channel) of one block; or a `vector` (block, step, channel) of the header's `blocks`; or `vectors` (block, channel)
with the array `blocks`. A unit of its knob adds magnitude × weight of the step × vector. `docs/reference/packs.md`
says what has no counterpart.
"""

from analyses.steering.demon.reading import vector_from_demon
from analyses.steering.demon.writing import write_demon

__all__ = ["vector_from_demon", "write_demon"]
