"""Make a map's spec from a user's options: named blocks, arms from a file, default directions."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from analyses.patching.arms import arms_from_file
from analyses.patching.run import custom_arms
from analyses.patching.spec import DEFAULT_QUESTION, DEFAULT_SCORER, PatchingSpec, Screening
from workbench.engine.sites import parse_block, parse_blocks
from workbench.engine.tensors import Tensors, load_tensor
from workbench.scorers import heard, load_scorer
from workbench.studies.study import Study
from workbench.text_files import LARGEST_DOCUMENT, read_text
from workbench.validation import must_be, validated

SECOND_SCORER = "musicnn"


def asked_spec(
    study: Study,
    question: str = DEFAULT_QUESTION,
    *,
    blocks: Sequence[str | int] = (),
    sets: Sequence[str | Sequence[int]] = (),
    directions: Sequence[str] = (),
    screening: Screening | Mapping[str, Any] | None = None,
    arms: str | Path | None = None,
    pairs_file: str | Path | None = None,
    **options: Any,
) -> PatchingSpec:
    """Make the spec of a map of a study.

    `blocks` are names, such as "tf3", or numbers; `sets` are blocks that are patched together, such as "tf3+tf4".
    Without `directions` the map has both for the question blocks without screening, otherwise sufficiency. `arms` is a
    JSON file of arms to run instead of those of a question. `options` are further fields of `PatchingSpec`; without
    scorers they are the `default_scorers`, without descriptors those of the study's prompt set.

    Raises:
        UserError: if a name is unknown, or options cannot be combined.
    """
    must_be(str, question, f"A question must be text, such as {DEFAULT_QUESTION}")
    names = study.block_names
    for file, what in ((arms, "arms"), (pairs_file, "pairs")):
        must_be((str, os.PathLike, type(None)), file, f"The file of {what} must be given by its path")
    custom = "" if arms is None else _arms_json(Path(arms))
    values = {
        "question": "custom" if custom else question,
        "blocks": _parsed(blocks, lambda text: parse_block(text, names)),
        "sets": _parsed(sets, lambda text: parse_blocks(text, names)),
        "directions": _directions(question, screening is not None) if _is_empty(directions) else directions,
        "screening": screening,
        "custom_arms": custom,
        "pairs_file": "" if pairs_file is None else os.path.abspath(pairs_file),
        **options,
    }
    if _is_empty(values.get("descriptors", ())):
        values["descriptors"] = study.spec.prompts.descriptors
    spec = validated(PatchingSpec, values, "Invalid map")
    if _is_empty(values.get("scorers", ())) and not pairs_file:
        return spec.model_copy(update={"scorers": default_scorers(study, spec.concepts)})
    return spec


def default_scorers(study: Study, concepts: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the scorers of a map that names none: of embedded and musicnn those that hear a value of its concepts.

    Without `concepts` it has all of the prompt set. The two learnt from different sounds, so that what both hear does
    not rest on either. Clips may be too short for one. If neither hears anything it is embedded, whose error says what
    it hears.
    """
    every = study.spec.prompts.concepts
    chosen = [values for concept, values in every.items() if concept in (concepts or every)]
    texts = [value.text for values in chosen for value in values.values()]
    known = [
        scorer.name
        for scorer in map(load_scorer, (DEFAULT_SCORER, SECOND_SCORER))
        if study.spec.settings.duration >= scorer.min_seconds and heard(scorer, texts)
    ]
    return tuple(known) or (DEFAULT_SCORER,)


def _parsed(given: Any, parse: Callable[[str], Any]) -> Any:
    """Parse a text or the texts of a list; what is neither is left for the spec to refuse."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Iterable):
        return given
    return [parse(each) if isinstance(each, str) else each for each in given]


def tensors_beside(arms: str | Path | None) -> Tensors | None:
    """Return a function that loads the tensors beside a file of arms; None without a file."""
    return None if arms is None else partial(load_tensor, Path(arms).parent)


def _arms_json(file: Path) -> str:
    return custom_arms(arms_from_file(read_text(file, LARGEST_DOCUMENT), tensors_beside(file)))


def _is_empty(given: Any) -> bool:
    return isinstance(given, str | Sequence) and not given


def _directions(question: str, screened: bool) -> tuple[str, ...]:
    both = question == "blocks" and not screened
    return ("sufficiency", "necessity") if both else ("sufficiency",)
