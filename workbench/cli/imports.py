"""Commands that import published artefacts: validate, convert, and store them with their origin."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cache.errors import UserError
from workbench.cli.console import Device, open_study, print_rows
from workbench.cli.parsing import CommandLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.artefacts.base import Artefact
    from workbench.studies.study import Study

app = CommandLine(
    help="Import published artefacts: steering vectors, autoencoders, score tables, localisation.",
    no_args_is_help=True,
)

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Folder or file of the artefact, or a hub id (owner/name).")
]
Out = Annotated[Path | None, typer.Option("--out", help="Safetensors file to write to.")]
InStudy = Annotated[
    Path | None, typer.Option("--study", help="Study to add it to instead, as imported/NAME.safetensors.")
]
ConceptName = Annotated[
    str, typer.Option("--concept", help="Concept, if the artefact does not name its own.")
]


@app.command()
def caa(source: Source, out: Out = None, study: InStudy = None, concept: ConceptName = "") -> None:
    """Steering vectors (CAA): sv.pkl and config.json."""
    from workbench.artefacts.caa import read_caa

    _import(lambda: read_caa(source, concept), "CAA steering vectors", out, study)


@app.command()
def scores(
    source: Source,
    out: Out = None,
    study: InStudy = None,
    concept: ConceptName = "",
    site: Annotated[str, typer.Option(help="Site, if the file name does not include it.")] = "",
) -> None:
    """Scores of an autoencoder's features: tf6_scores.pkl."""
    from workbench.artefacts.scores import read_scores

    _import(lambda: read_scores(source, concept, site), "feature scores", out, study)


@app.command()
def austeer(source: Source, out: Out = None, study: InStudy = None, concept: ConceptName = "") -> None:
    """AUSteer scores of channels: austeer.pkl and config.json."""
    from workbench.artefacts.austeer import read_austeer

    _import(lambda: read_austeer(source, concept), "AUSteer channel scores", out, study)


@app.command()
def lora(source: Source, out: Out = None, study: InStudy = None, concept: ConceptName = "") -> None:
    """Concept Sliders (LoRA): pytorch_lora_weights.safetensors and train_config.json."""
    from workbench.artefacts.lora import read_lora

    _import(lambda: read_lora(source, concept), "Concept Slider (LoRA)", out, study)


@app.command("token-embedding")
def token_embedding(
    source: Source, out: Out = None, study: InStudy = None, concept: ConceptName = ""
) -> None:
    """Token-embedding directions: CONCEPT_direction.pt."""
    from workbench.artefacts.token_embedding import read_token_embedding

    _import(lambda: read_token_embedding(source, concept), "token-embedding direction", out, study)


@app.command()
def sae(
    source: Source,
    out: Annotated[Path | None, typer.Option("--out", help="New folder to write the autoencoder to.")] = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="Study to add it to instead, with a table of its features.")
    ] = None,
    site: Annotated[
        str, typer.Option(help="Site, if neither its settings nor its folder's name include it.")
    ] = "",
    name: Annotated[
        str,
        typer.Option(
            help="Name to keep it by in the study; by default that of its site, or the next free one."
        ),
    ] = "",
    device: Device = "cpu",
) -> None:
    """Sparse autoencoder of SAELens or sparsify: cfg.json and weights."""
    from analyses.sae.names import sae_folder
    from analyses.sae.published import convert_sae, import_sae
    from workbench.artefacts.sae_folder import read_sae
    from workbench.sae.settings import sae_kind

    target = _target(out, study)
    published = read_sae(source, site)
    if isinstance(target, Path):
        written = convert_sae(published, target)
    else:
        written = sae_folder(target, import_sae(target, published, device, name).attrs["name"])
    config = published.sae.config
    print_rows(
        {
            "what": f"sparse autoencoder ({sae_kind(config.trained_as, config.architecture)})",
            "site": published.site,
            "features": f"{config.d_sae} of {config.d_in} channels",
            "settings": ", ".join(f"{name} = {value}" for name, value in config.settings.items()),
            "source": published.origin.source,
            "SHA-256": published.origin.sha256,
            "written": str(written),
        }
    )


@app.command()
def localisation(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="CSV file, a folder with one, or a hub id (owner/name).")
    ],
    model: Annotated[str, typer.Option(help="Model in the table; required if it has several.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="NetCDF file to write to.")] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Study to add it to instead, as the result published-MODEL."),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(min=0.0, max=1e6, help="Smallest mean impact of a block in the functional set."),
    ] = 0.10,
) -> None:
    """Table of block impacts: CSV with the columns model, concept, block and impact."""
    from analyses.patching.published_map import functional_set, import_published_map, published_map
    from workbench.artefacts.published import load_published
    from workbench.artefacts.sources import find_artefact
    from workbench.files import replacing
    from workbench.studies.result_files import result_bytes

    target = _target(out, study)
    origin = find_artefact(source, "*.csv")
    if isinstance(target, Path):
        result = published_map(load_published(origin.file), model)
        result = result.assign_attrs(source=origin.source, source_sha256=origin.sha256)
        content = result_bytes(result)
        with replacing(target) as partial:
            partial.write_bytes(content)
        written = target
    else:
        result = import_published_map(target, origin.file, model)
        written = target.path / "results" / f"published-{result.attrs['model']}.nc"
    means = dict(zip(result["block"].values.tolist(), result["mean"].values.tolist(), strict=True))
    ranked = sorted(means.items(), key=lambda item: -item[1])[:5]
    print_rows(
        {
            "what": f"published block impacts of {result.attrs['model']}",
            "concepts": ", ".join(result["concept"].values.tolist()),
            "blocks": str(result.sizes["block"]),
            "largest means": ", ".join(f"{block} {mean:.4f}" for block, mean in ranked),
            f"functional set, τ = {threshold:g}": ", ".join(functional_set(means, threshold)) or "empty",
            "SHA-256": origin.sha256,
            "written": str(written),
        }
    )


def _target(out: Path | None, study: Path | None) -> "Path | Study":
    """Return where to write; raise UserError unless exactly one is given: a study, or an `out` that does not exist."""
    if (out is None) == (study is None):
        raise UserError("Give either --out or --study, not both or neither.")
    return open_study(study) if study is not None else Path(str(out))


def _import(read: "Callable[[], Artefact]", what: str, out: Path | None, study: Path | None) -> None:
    """Read and validate an artefact, store it, and print a summary."""
    from workbench.artefacts.written import study_file, write_artefact

    target = _target(out, study)
    artefact = read()
    if isinstance(target, Path):
        file = target
    else:
        _check_widths(artefact, target)
        file = study_file(target.path, artefact.name)
    write_artefact(artefact, file, None if isinstance(target, Path) else target.path)
    concept = artefact.concept
    rows = {
        "what": what,
        "concept": concept.name,
        "+ is": f"{concept.positive} ({concept.positive_prompt})",
        "− is": f"{concept.negative} ({concept.negative_prompt})",
        "sites": _sites(artefact),
        "steps": str(artefact.steps or "all alike"),
        "arrays": _shapes(artefact),
        "source": artefact.origin.source,
        "SHA-256": artefact.origin.sha256,
        "written": str(file),
    }
    print_rows({**rows, "note": str(artefact.metadata().get("note", ""))})


def _check_widths(artefact: "Artefact", study: "Study") -> None:
    """Raise UserError if the study has activations of one of the sites with another width."""
    from workbench.engine.sites import numbered_site
    from workbench.studies.confirmed import UnconfirmedStore

    try:
        sites = study.cache.plan.sites
    except UnconfirmedStore:
        raise
    except UserError:  # not traced yet
        return
    for site, width in artefact.sites.items():
        channels = sites.get(numbered_site(site, study.block_names), width)
        if channels != width:
            raise UserError(
                f"{artefact.origin.source} has vectors with {width} channels at {site}, but {study.path} has "
                f"{channels} there. They belong to another model."
            )


def _sites(artefact: "Artefact") -> str:
    names = list(artefact.sites) or [str(artefact.metadata().get("site", "none"))]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]} ({len(names)})"


def _shapes(artefact: "Artefact") -> str:
    """Count the arrays of each shape."""
    counts: dict[tuple[int, ...], int] = {}
    for array in artefact.arrays().values():
        counts[array.shape] = counts.get(array.shape, 0) + 1
    shapes = [f"{count} of {' × '.join(map(str, shape))}" for shape, count in counts.items()]
    return ", ".join(shapes[:4]) + (f" and {len(shapes) - 4} more shapes" if len(shapes) > 4 else "")
