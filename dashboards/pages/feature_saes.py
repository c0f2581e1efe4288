"""The autoencoder whose features the pages show: the one in the URL, and how selectors name each."""

from dash.exceptions import PreventUpdate

from dashboards.pages.page import Query
from dashboards.results import load_result, sae_names
from workbench.sae.settings import sae_kind
from workbench.studies.study import Study


def asked_sae(study: Study, query: Query) -> str:
    """The autoencoder in the URL, or the first one; nothing happens if the study has none any more."""
    names = sae_names(study)
    if not names:
        raise PreventUpdate
    return query["sae"] if query.get("sae") in names else names[0]


def known_sae(study: Study, name: str) -> str:
    """The autoencoder of a selector; nothing happens if it cannot be shown any more."""
    if name not in sae_names(study):
        raise PreventUpdate
    return name


def sae_choices(study: Study) -> list[dict[str, str]]:
    """The choices of a selector of autoencoders."""
    return [{"value": name, "label": _described(study, name)} for name in sae_names(study)]


def _described(study: Study, name: str) -> str:
    """An autoencoder's name, its site if that is another, architecture, number of features, and k."""
    result = load_result(study, f"sae-{name}")
    site, kept_as = str(result.attrs["site"]), str(result.attrs["architecture"])
    parts = [
        *([site] if site != name else []),
        sae_kind(str(result.attrs.get("trained_as", kept_as)), kept_as),
        f"{result.sizes['feature']} features",
        *([f"k {result.attrs['k']}"] if "k" in result.attrs else []),
    ]
    return f"{name} ({', '.join(parts)})"
