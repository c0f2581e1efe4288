"""A small study without a model, made quickly, for tests to corrupt."""

from pathlib import Path

from workbench.engine.settings import GenerationSettings
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import Study, StudySpec

PROMPTS = PromptSet.model_validate(
    {"templates": ["a {tempo} song"], "concepts": {"tempo": {"slow": "slow", "fast": "fast"}}}
)
MODEL = {"model": "tiny", "weights_hash": "0123456789abcdef", "device": "cpu", "dtype": "float32"}


def make_foreign_study(path: Path, model: str = "organism-shared", store: str | None = None) -> Study:
    """A study of four one-second clips, without a cache, audio or results."""
    spec = StudySpec(
        model=model,
        prompts=PROMPTS,
        settings=GenerationSettings(duration=1.0, num_steps=2),
        n_prompts=2,
        seeds=2,
        sites=("tf0.cross_attn",),
        steps=(0, 1),
        passes=("cond",),
    )
    return Study.create(path, spec, MODEL, str, store)
