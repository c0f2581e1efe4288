"""Make a study's spec from a user's options: defaults, and sites, steps and passes written as text."""

from collections.abc import Mapping
from typing import Any

from cache.protocol import Dtype
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.models.token_axis import finest_site
from workbench.prompts.defaults import PROMPT_SET
from workbench.prompts.prompt_sets import PromptSet, asked_prompt_set
from workbench.prompts.reading import unknown_words
from workbench.studies.request import StudyOptions, StudyRequest
from workbench.studies.selection import parse_passes, parse_steps, parse_tokens
from workbench.studies.study import StudySpec
from workbench.validation import validated

_WHAT = "Invalid study"

DEFAULT_SETTINGS = GenerationSettings()
NO_DTYPES: Mapping[str, Dtype] = {}


def plan_study(
    model: AudioDiffusionModel,
    prompts: str | PromptSet = PROMPT_SET,
    *,
    settings: GenerationSettings | Mapping[str, Any] = DEFAULT_SETTINGS,
    site_dtypes: Mapping[str, Dtype] = NO_DTYPES,
    **options: Any,
) -> StudySpec:
    """Make the spec of a study of a model.

    `prompts` is a prompt set, or the name or file of one; `options` are further fields of `StudyRequest`.

    Raises:
        UserError: for unknown names, and options that cannot be combined.
    """
    given = {"settings": settings, "site_dtypes": site_dtypes, **options}
    asked = validated(StudyRequest, given, _WHAT)
    model.check_settings(asked.settings)
    names, duration = model.block_names, asked.settings.duration
    kept = parse_sites(asked.sites, model.n_blocks, names)
    most_tokens = model.tokens_at(finest_site(model, kept, duration), duration)
    planned = {
        **asked.model_dump(include=set(StudyOptions.model_fields)),
        "model": model.name,
        "prompts": asked_prompt_set(prompts),
        "settings": asked.settings,
        "sites": tuple(map(str, kept)),
        "steps": parse_steps(asked.steps, model.sigmas(asked.settings)),
        "passes": parse_passes(asked.passes),
        "tokens": parse_tokens(asked.tokens, most_tokens),
        "site_dtypes": {
            str(site): dtype
            for text, dtype in asked.site_dtypes.items()
            for site in parse_sites([text], model.n_blocks, names)
        },
    }
    return validated(StudySpec, planned, _WHAT)


def words_unknown(model: AudioDiffusionModel, spec: StudySpec) -> str:
    """Return a sentence on the words of a study's prompts that are not in its model's vocabulary, or ""."""
    return unknown_words(
        model, sorted({prompt.text for prompt in spec.prompts.fill(spec.n_prompts, spec.seed)})
    )
