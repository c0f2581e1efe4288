"""The planted truth of a study's model, read only if the user asks to compare with it."""

import pandas as pd

from cache.errors import UserError
from workbench.studies.study import Study


def has_truth(study: Study) -> bool:
    """Whether the study's model has a truth card, without revealing its contents."""
    return study.truth_card() is not None


def planted_blocks(study: Study) -> dict[str, list[int]]:
    """The blocks of each concept on the model's truth card.

    Raises:
        UserError: the model has no card.
    """
    card = study.truth_card()
    if card is None:
        raise UserError(
            f"The model of {study.path} has no truth card, so there is no planted truth to compare with."
        )
    return {concept: [int(block) for block in blocks] for concept, blocks in card["concepts"].items()}


def truth_frame(study: Study) -> pd.DataFrame:
    """The planted truth as a table: concept, blocks ("tf3, tf4")."""
    planted = planted_blocks(study)
    names = [", ".join(f"tf{block}" for block in blocks) for blocks in planted.values()]
    return pd.DataFrame({"concept": list(planted), "blocks": names})
