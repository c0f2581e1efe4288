"""From what a user asks of a study to its spec: defaults, names of sites, steps and passes in words."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from cache.protocol import Dtype
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.models.token_axis import finest_site
from workbench.prompts.prompt_sets import PromptSet, load_prompt_set
from workbench.prompts.reading import unknown_words
from workbench.studies.selection import parse_passes, parse_steps, parse_tokens
from workbench.studies.study import StudySpec
from workbench.validation import validated

SITES = ("*.cross_attn", "*.block")


class PlanOptions(TypedDict, total=False):
    """What `plan_study` takes by name."""

    settings: GenerationSettings | None
    n_prompts: int
    seeds: int
    seed: int
    lyrics: str
    sites: Sequence[str]
    steps: str | Sequence[int]
    passes: str | Sequence[str]
    tokens: str
    cache_dtype: Dtype
    site_dtypes: Mapping[str, Dtype]
    zstd_level: int
    clips_per_shard: int


def plan_study(
    model: AudioDiffusionModel,
    prompts: str | PromptSet = "organism",
    *,
    settings: GenerationSettings | None = None,
    n_prompts: int = 56,
    seeds: int = 3,
    seed: int = 0,
    lyrics: str = "",
    sites: Sequence[str] = SITES,
    steps: str | Sequence[int] = "all",
    passes: str | Sequence[str] = "cond",
    tokens: str = "all",
    cache_dtype: Dtype = "float16",
    site_dtypes: Mapping[str, Dtype] | None = None,
    zstd_level: int = 0,
    clips_per_shard: int = 16,
) -> StudySpec:
    """The spec of a study of a model.

    `prompts` is a prompt set, or the name or file of one; `sites` may have wildcards, as `site_dtypes` may; `steps`,
    `passes` and `tokens` are written as for `workbench trace`.

    Raises:
        UserError: for what there is not, or does not go together.
    """
    settings = settings or GenerationSettings()
    model.check_settings(settings)
    names = model.block_names
    kept = parse_sites(sites, model.n_blocks, names)
    most_tokens = model.tokens_at(finest_site(model, kept, settings.duration), settings.duration)
    dtypes = {
        str(site): dtype
        for text, dtype in (site_dtypes or {}).items()
        for site in parse_sites([text], model.n_blocks, names)
    }
    planned = {
        "model": model.name,
        "prompts": load_prompt_set(prompts) if isinstance(prompts, str) else prompts,
        "settings": settings,
        "n_prompts": n_prompts,
        "seeds": seeds,
        "seed": seed,
        "lyrics": lyrics,
        "sites": tuple(map(str, kept)),
        "steps": parse_steps(_in_words(steps), model.sigmas(settings)),
        "passes": parse_passes(_in_words(passes)),
        "tokens": parse_tokens(tokens, most_tokens),
        "cache_dtype": cache_dtype,
        "site_dtypes": dtypes,
        "zstd_level": zstd_level,
        "clips_per_shard": clips_per_shard,
    }
    return validated(StudySpec, planned, "The study cannot be made")


def words_unknown(model: AudioDiffusionModel, spec: StudySpec) -> str:
    """One sentence on the words of a study's prompts that its model does not know; "" where it knows all."""
    return unknown_words(
        model, sorted({prompt.text for prompt in spec.prompts.fill(spec.n_prompts, spec.seed)})
    )


def _in_words(labels: str | Sequence[int] | Sequence[str]) -> str:
    return labels if isinstance(labels, str) else ",".join(map(str, labels))
