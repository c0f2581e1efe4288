"""The labels of a study's clips, concept by concept, by which features are scored."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

FEWEST_PROMPTS = 2


class ConceptLabels(NamedTuple):
    """A concept's labels: the clips that have a value, with the labels and numbers of their prompts.

    Prompts that are the same tokens to the model (`encoding` in the clip table) count as one.
    """

    concept: str
    values: list[str]  # in order
    ambiguous: set[str]  # values of prompts that are the same tokens as one with another value
    clips: Int[np.ndarray, " clip"]
    prompt_labels: Shaped[np.ndarray, " prompt"]
    prompt: Int[np.ndarray, " clip"]

    def has_auroc(self, value: str) -> bool:
        """Whether `FEWEST_PROMPTS` prompts have the value and as many lack it, and the model can tell which do.

        A feature of a single prompt would separate that prompt's value, too.
        """
        n = int((self.prompt_labels == value).sum())
        return value not in self.ambiguous and min(n, len(self.prompt_labels) - n) >= FEWEST_PROMPTS

    def has(self, value: str) -> Bool[np.ndarray, " clip"]:
        """Which of the clips have a value."""
        return (self.prompt_labels == value)[self.prompt]

    def by_prompt(self, of_clips: Float[np.ndarray, "clip column"]) -> Float[np.ndarray, "prompt column"]:
        """Return the sums over the clips of each prompt."""
        sums = np.zeros((len(self.prompt_labels), of_clips.shape[1]))
        np.add.at(sums, self.prompt, of_clips)
        return sums


def concept_labels(clips: pd.DataFrame) -> list[ConceptLabels]:
    """Return the labels of each concept, from the `label_<concept>` columns of a study's clip table."""
    found = []
    for column in (name for name in clips.columns if name.startswith("label_")):
        known = np.flatnonzero(clips[column] != "")
        labels = clips[column].to_numpy(str)[known]
        # Numbered in order of appearance, so that shuffles do not depend on the hashes.
        prompt, _ = pd.factorize(clips["encoding"].iloc[known])
        prompt_labels = labels[np.unique(prompt, return_index=True)[1]]
        mixed = np.isin(prompt, prompt[labels != prompt_labels[prompt]])
        found.append(
            ConceptLabels(
                column.removeprefix("label_"),
                sorted(set(labels.tolist())),
                set(labels[mixed].tolist()),
                known,
                prompt_labels,
                prompt,
            )
        )
    return found
