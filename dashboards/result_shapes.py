"""Check the shapes and types of results from elsewhere (docs/reference/results.md describes the schema)."""

import json

import numpy as np
import xarray as xr

from dashboards.tables import benchmark
from dashboards.tables.features import MEASURES, NEARNESS, SCORES, STEP_MEASURES
from dashboards.tables.patching import AGREEMENT, CELL_VALUES, CONCEPT_VALUES, TESTS, TEXTS
from dashboards.tables.probes import HELD_TOGETHER
from dashboards.tables.steering import ARM_VALUES, CHECKS, DENOMINATOR, IMPACTS, is_away

_DIMENSIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "concept pair seed arm scorer": {"patching": ("score",), "steering": ("score",)},
    "concept pair seed arm": {"patching": ("audio",)},
    "concept pair seed": {"patching": ("noise_seed",)},
    "pair seed arm": {"steering": ("audio",)},
    "pair seed": {"steering": ("noise_seed",)},
    "pair": {"steering": ("clean_prompt", "corrupt_prompt")},
    "concept pair": {"patching": TEXTS},
    "concept arm scorer": {"patching": (*CELL_VALUES, *TESTS), "steering": ARM_VALUES},
    "arm scorer": {"steering": IMPACTS},
    "way scorer": {"steering": CHECKS},
    "scorer": {"steering": (*DENOMINATOR, "defined", "n", "n_pairs")},
    "concept scorer": {"patching": CONCEPT_VALUES},
    "concept scorer scorer_b": {"patching": AGREEMENT},
    "concept pair scorer": {"patching": ("orientation",)},
    "arm": {
        "patching": ("row", "column", "direction", "role", "block", "null_of", "null_kind"),
        "steering": ("row", "strength", "role", "null_of"),
    },
    "descriptor site step": {"probes": ("r2", "r2_lo", "r2_hi", "r2_control", "r2_p")},
    "descriptor": {"probes": ("descriptor_n", "descriptor_groups")},
    "concept site step fold": {"probes": ("accuracy", "control")},
    "concept site step": {
        "probes": ("accuracy_mean", "accuracy_lo", "accuracy_hi", "control_mean", "selectivity", "p_value")
    },
    "step": {"probes": ("sigma",), "sae": ("sigma", "gated", *(f"step_{name}" for name in STEP_MEASURES))},
    "concept": {"probes": ("chance", "n", "groups", "held_together")},
    "train_step": {"sae": MEASURES},
    "scaled": {"sae": ("mean_to_spread",)},
    "": {"sae": tuple(f"final_{name}" for name in MEASURES)},
    "feature": {"sae": ("density", "max_activation", "mean_activation", "alive", "label")},
    "feature rank": {"sae": ("top_clip", "top_activation", "top_second", "top_step")},
    "feature bin": {"sae": ("hist_edge", "hist_count")},
    "feature step": {"sae": ("step_profile",)},
    "feature quantile": {
        "sae": ("quantile_clip", "quantile_activation", "quantile_second", "quantile_step"),
    },
    "feature neighbour": {
        "sae": tuple(f"{by}_{what}" for by, measure in NEARNESS.items() for what in ("neighbour", measure))
    },
    "feature value": {
        "sae": ("p_adjusted", *(f"{name}{end}" for name in SCORES for end in ("", "_lo", "_hi")))
    },
    "value": {"sae": ("auroc_shuffled",)},
}
_PUBLISHED_ONLY = "published benchmark"
_BENCHMARKS = {"benchmark": benchmark.STRICT | benchmark.PUBLISHED, _PUBLISHED_ONLY: benchmark.PUBLISHED}
# Variables that are between 0 and 1, or NaN.
_FRACTIONS = {
    "patching": TESTS,
    "steering": TESTS,
    "probes": (
        "accuracy",
        "control",
        "accuracy_mean",
        "accuracy_lo",
        "accuracy_hi",
        "control_mean",
        "p_value",
        "chance",
    ),
    "sae": ("density", "auroc", "auroc_shuffled", "p_adjusted", "dead_fraction", "final_dead_fraction"),
}
_OPTIONAL = {"probes": ("r2", "r2_lo", "r2_hi", "r2_control", "r2_p", "descriptor_n", "descriptor_groups")}
"""Variables that a result has either all or none of."""
_ROUNDING = 1e-6
MAX_PAIRS = 10_000
ROLES = {"run", "cell", "null"}
STEERING_ROLES = ROLES | {"floor"}
_TEXTS = {
    *("audio", "row", "column", "direction", "role", "null_of", "null_kind", *TEXTS),
    *(
        "concept",
        "descriptor",
        "arm",
        "scorer",
        "scorer_b",
        "site",
        "value",
        "metric",
        "held_together",
        "way",
        "label",
    ),
    *("measure", "sign", "judged", *benchmark.TEXTS),
}
_TEXT_LABELS = _TEXTS | {
    "replacement",
    "ablation",
    "other",
    "sae",
    "block",
}  # published maps name their blocks


def shape_fault(result: xr.Dataset, kind: str, n_clips: int) -> str:
    """Why a complete result of `kind`, from a study with `n_clips` clips, is not valid; "" if it is."""
    optional = _OPTIONAL.get(kind, ())
    absent = [name for name in optional if name not in result]
    if absent and (len(absent) < len(optional) or "descriptor" in result.dims):
        return f"is incomplete (it has no {', '.join(absent)})"
    for dimensions, names in _dimensions(result, kind).items():
        for name in names:
            if name in absent:
                continue
            if set(result[name].dims) != set(dimensions.split()):
                return f"has wrong dimensions ({', '.join(map(str, result[name].dims))[:80]}) for {name}"
            if not _is_typed(result[name], name):
                return f"has values of {name} that are not {'text' if name in _TEXTS else 'numbers'}"
    for label in result.dims:
        if label in result.coords and not _is_typed(result[label], str(label), _TEXT_LABELS):
            return f"has labels of the wrong type for {str(label)[:40]}"
    for name in _FRACTIONS.get(kind, ()):
        values = result[name].values
        if np.any((values < -_ROUNDING) | (values > 1 + _ROUNDING)):
            return f"has values of {name} outside the range 0 to 1"
    if kind == "patching" and (fault := _patching_fault(result)):
        return fault
    if kind in ("patching", "steering") and not all(
        map(_is_recording, result["audio"].values.ravel().tolist())
    ):
        return "names recordings outside the study"
    if kind == "steering" and (fault := _steering_fault(result)):
        return fault
    if kind == "benchmark" and (fault := _benchmark_fault(result)):
        return fault
    if kind == "probes" and not set(result["held_together"].values.tolist()) <= set(HELD_TOGETHER):
        return f"has values of held_together other than {', '.join(HELD_TOGETHER)}"
    if kind == "sae":
        return _sae_fault(result, n_clips)
    return ""


def _dimensions(result: xr.Dataset, kind: str) -> dict[str, tuple[str, ...]]:
    """The variables of a kind of result by their dims."""
    if kind == "benchmark":
        return _BENCHMARKS[_PUBLISHED_ONLY if result.attrs["protocol"] == "published" else kind]
    return {dimensions: kinds.get(kind, ()) for dimensions, kinds in _DIMENSIONS.items()}


def _patching_fault(result: xr.Dataset) -> str:
    """Why a patching result with the right shapes is not a valid map; "" if it is."""
    roles = set(result["role"].values.tolist())
    if "cell" not in roles or not roles <= ROLES:
        return f"has no cells, or arms with roles other than {', '.join(sorted(ROLES))}"
    scorers = result["scorer"].values.tolist()
    if "scorer_b" not in result.coords or result["scorer_b"].values.tolist() != scorers:
        return "has different scorers for scorer_b and scorer"
    if not isinstance(result.attrs.get("confidence"), float | np.floating):
        return "has no confidence level for its intervals"
    counts = result["n_pairs"].values.astype(float)
    if not np.all((counts >= 0) & (counts <= MAX_PAIRS)):
        return "has invalid pair counts in n_pairs"
    return ""


def _steering_fault(result: xr.Dataset) -> str:
    """Why a steering result with the right shapes is not valid; "" if it is."""
    roles = result["role"].values.tolist()
    if "cell" not in roles or not set(roles) <= STEERING_ROLES:
        return f"has no cells, or arms with roles other than {', '.join(sorted(STEERING_ROLES))}"
    if not isinstance(result.attrs.get("confidence"), float | np.floating):
        return "has no confidence level for its intervals"
    if str(result.attrs["concept"]) not in result["concept"].values.tolist():
        return "has no scores of the steered concept"
    if set(result["arm"].values[np.array(roles) == "run"].tolist()) != {"clean", "corrupt"}:
        return "has no unsteered runs"
    if not np.all(np.isfinite(result["strength"].values.astype(float))):
        return "has strengths that are not finite"
    counts = result["n_pairs"].values.astype(float)
    if not np.all((counts >= 0) & (counts <= MAX_PAIRS)):
        return "has invalid pair counts in n_pairs"
    falls = (result["denominator_hi"].values < 0) & ~result["defined"].values.astype(bool)
    if is_away(result) and falls.any():
        return "is of an older version of the workbench, which took the falling scores of steering away for a failure"
    return ""


def _benchmark_fault(result: xr.Dataset) -> str:
    """Why an evaluation with the right shapes is not valid; "" if it is."""
    if not isinstance(json.loads(result.attrs["spec"]).get("trials"), dict):
        return "has a spec that does not name its trials"
    if not set(result["sign"].values.tolist()) <= set(benchmark.DIRECTIONS):
        return f"has signs other than {', '.join(benchmark.DIRECTIONS)}"
    if result.attrs["protocol"] == "published":
        return ""
    if result.attrs["protocol"] != "strict":
        return f"has an unknown protocol {str(result.attrs['protocol'])[:40]!r}"
    if not isinstance(result.attrs.get("confidence"), float | np.floating):
        return "has no confidence level for its intervals"
    if not isinstance(result.attrs.get("warnings"), str):
        return "does not say what makes its numbers look too good (it has no warnings)"
    roles = set(result["role"].values.tolist())
    if "cell" not in roles or not roles <= STEERING_ROLES:
        return f"has no cells, or arms with roles other than {', '.join(sorted(STEERING_ROLES))}"
    rows = set(result["row"].values[result["role"].values == "cell"].tolist())
    if not rows <= set(result["way"].values.tolist()):
        return "has arms of ways of steering that it does not have"
    if set(result["judged"].values.tolist()) != set(result["concept"].values.tolist()):
        return "judges other concepts than it steers"
    for name in ("n_pairs", "n_seeds", "overall_n"):
        counts = result[name].values.astype(float)
        if not np.all((counts >= 0) & (counts <= MAX_PAIRS)):
            return f"has invalid counts in {name}"
    if set(result["arm"].values[result["role"].values == "run"].tolist()) != {"clean", "corrupt"}:
        return "has no unsteered runs"
    if not np.all(np.isfinite(result["strength"].values.astype(float))):
        return "has strengths that are not finite"
    return ""


def _sae_fault(result: xr.Dataset, n_clips: int) -> str:
    """Why an autoencoder's result with the right shapes is not valid; "" if it is."""
    if not all(_are_clips(result[name].values, n_clips) for name in ("top_clip", "quantile_clip")):
        return "names clips that the study does not have"
    features = set(result["feature"].values.tolist()) | {-1}
    if not all(set(result[f"{by}_neighbour"].values.ravel().tolist()) <= features for by in NEARNESS):
        return "names neighbours that are not features"
    if not set(result["label"].values.tolist()) <= {*map(str, result["value"].values.tolist()), ""}:
        return "has labels that are not values of concepts"
    return ""


def _is_typed(values: xr.DataArray, name: str, texts: set[str] = _TEXTS) -> bool:
    if name not in texts:
        return values.dtype.kind in "fiub"
    return values.dtype.kind in "UT" or all(
        isinstance(value, str) for value in values.values.ravel().tolist()
    )


def _are_clips(numbers: np.ndarray, n_clips: int) -> bool:
    return numbers.size == 0 or bool(numbers.min() >= -1 and numbers.max() < n_clips)


def _is_recording(name: str) -> bool:
    """Whether this is the path of a recording in the study's audio folder, or empty."""
    parts = name.split("/")
    inside = parts[0] == "audio" and name.endswith(".flac") and not {"", ".", ".."} & set(parts)
    return not name or (inside and "\\" not in name and "\0" not in name)
