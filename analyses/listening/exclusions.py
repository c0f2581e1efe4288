"""Which listeners are excluded, by rules that are stated before anyone looks at what they prefer."""

from analyses.listening.spec import HIDDEN_REFERENCE, ExclusionRules
from cache.wording import counted
from workbench.listening.answers import Answers


def exclusions(answers: Answers, rules: ExclusionRules) -> dict[int, str]:
    """Return for every listener the first rule that excludes the listener, as a phrase, or "".

    Who was excluded before an import stays so: webMUSHRA's files have neither checks nor headphone tests.
    """
    missed = _missed_references(answers)
    n_checks = sum(trial.kind == "check" for trial in answers.config.trials)
    n_tests = len(answers.config.headphones)
    reasons = {}
    for row in answers.listeners.itertuples():
        wrong_checks, wrong_tests = n_checks - row.checks, n_tests - row.headphones
        if row.excluded:
            reason = str(row.excluded)
        elif wrong_tests > rules.wrong_headphones:
            reason = f"{counted(wrong_tests, 'headphone test')} of {n_tests} wrong"
        elif row.finished and wrong_checks > rules.wrong_checks:
            reason = f"{counted(wrong_checks, 'attention check')} of {n_checks} wrong"
        elif not row.finished:
            reason = "not finished"
        elif row.fast > rules.fast:
            reason = f"{row.fast:.0%} of the trials answered faster than the clips play"
        elif missed.get(row.listener, 0.0) > rules.hidden_reference:
            share = missed[row.listener]
            reason = f"hidden reference below {HIDDEN_REFERENCE:g} in {share:.0%} of the trials"
        else:
            reason = ""
        reasons[int(row.listener)] = reason
    return reasons


def _missed_references(answers: Answers) -> dict[int, float]:
    """Return the share of each listener's trials in which the hidden reference is rated too low."""
    hidden = answers.ratings[answers.ratings["role"] == "hidden reference"]
    return (hidden["rating"] < HIDDEN_REFERENCE).groupby(hidden["listener"]).mean().to_dict()
