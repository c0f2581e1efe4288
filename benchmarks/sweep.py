"""A patching sweep as one batch, against one generation per arm with the clean run beside it: seconds and ratio."""

from analyses.patching import PatchingSpec, patch_arms, run_arms
from benchmarks._result import write_result
from benchmarks.tracing import SETTINGS, interleaved_seconds
from workbench.interventions import Intervention
from workbench.models import load_model
from workbench.models.protocol import Clip
from workbench.prompts import load_prompt_set


def main() -> None:
    """Measure and write results/sweep.json."""
    model = load_model("organism-shared")
    pair = load_prompt_set("organism").pairs("mood", 1, seed=0)[0]
    arms = patch_arms(PatchingSpec(), model.n_blocks)

    def one_batch() -> None:
        run_arms(model, pair, 0, arms, SETTINGS)

    def one_run_per_arm() -> None:
        for arm in arms.values():
            model.generate(
                [Clip(pair.clean.text, 0), Clip(pair.corrupt.text, 0)],
                SETTINGS,
                [Intervention(1, arm, source=0)],
            )

    batched, separate = interleaved_seconds(one_batch, one_run_per_arm)
    figures = {
        "arms": len(arms),
        "one_batch_s": batched,
        "one_run_per_arm_s": separate,
        "ratio_batch_to_separate": batched / separate,
    }
    print(write_result("sweep", figures).read_text())


if __name__ == "__main__":
    main()
