"""A user's request for a study. Imports nothing slow: `workbench trace` takes its options from here."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from cache.protocol import MAX_ZSTD_LEVEL, Dtype
from workbench.engine.settings import GenerationSettings
from workbench.seeds import Seed
from workbench.validation import Names, distinct

MAX_CLIPS = 10_000_000


def _in_words(labels: str | Sequence[int] | Sequence[str]) -> str:
    if isinstance(labels, str):
        return labels
    if not isinstance(labels, Iterable):
        raise ValueError(f"give text or a list, not {labels!r}")
    return ",".join(map(str, labels))


Words = Annotated[str, BeforeValidator(_in_words)]
"""Labels as a user writes them, "0,3,7"; also taken as a list."""


class StudyOptions(BaseModel):
    """The options that a study's spec keeps unchanged: its clips, all with the same `lyrics`, and their storage.

    Sites in `site_dtypes` are stored with the dtype given there instead of `cache_dtype`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    n_prompts: int = Field(56, ge=1, le=MAX_CLIPS, description="Number of distinct prompts.")
    seeds: int = Field(3, ge=1, le=MAX_CLIPS, description="Clips per prompt, each with its own seed.")
    seed: Seed = Field(0, description="First seed.")
    lyrics: str = Field("", description="Lyrics of every clip.")
    cache_dtype: Dtype = Field("float16", description="Storage dtype of the activations.")
    site_dtypes: dict[str, Dtype] = {}
    zstd_level: int = Field(
        0, ge=0, le=MAX_ZSTD_LEVEL, description="zstd compression level of the cache; 0 disables it."
    )
    clips_per_shard: int = Field(
        16, ge=1, description="Clips per shard, which is generated and committed as a whole."
    )


class StudyRequest(StudyOptions):
    """A request for a study of any model: `*` may stand for a site's block; steps, tokens and passes are in words."""

    _distinct = field_validator("*")(distinct)

    settings: GenerationSettings = Field(default_factory=GenerationSettings)
    sites: Names = Field(
        ("*.cross_attn", "*.block"),
        description="Site to record, such as tf4.block; '*.block' selects that part of every block.",
    )
    steps: Words = Field(
        "all", description="Steps to record: 'all', 0,3,7, or '8 stratified' (spread evenly over the sigmas)."
    )
    tokens: str = Field(
        "all",
        description="Tokens to record: 'all', 'every 4', 'mean 4' (average of neighbours) or 'mean' (of all).",
    )
    passes: Words = Field("cond", description="Guidance passes to record, such as cond,null.")
