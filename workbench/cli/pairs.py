"""Commands that make files of counterfactual pairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cache.errors import UserError
from workbench.cli.console import Device, note, progress
from workbench.cli.parsing import CommandLine
from workbench.prompts.defaults import ATTRIBUTE_SET, CAPTION_COLUMN, PROMPT_SET, Alignment
from workbench.seeds import LARGEST_SEED

if TYPE_CHECKING:
    from workbench.prompts.counterfactuals import Candidate, Tokenizer

app = CommandLine(help="Build, filter and import files of counterfactual pairs of captions.")

Out = Annotated[Path, typer.Option("--out", help="CSV file to write the pairs to.")]
AttributeSetName = Annotated[
    str, typer.Option("--attribute-set", help="Built-in attribute set, or a YAML file.")
]
Report = Annotated[Path | None, typer.Option(help="CSV file with one row per candidate.")]


@app.command()
def build(
    out: Out,
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Text file with one caption per line, or CSV, TSV, JSON or Parquet; default: --prompts."
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="Column with the captions, in a table.")] = CAPTION_COLUMN,
    prompts: Annotated[
        str, typer.Option(help="Prompt set whose prompts are used as captions if there are no --captions.")
    ] = PROMPT_SET,
    n_prompts: Annotated[int | None, typer.Option(min=1, help="Number of prompts; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the prompts.")] = 0,
    attribute_set: AttributeSetName = ATTRIBUTE_SET,
    attribute: Annotated[
        list[str] | None, typer.Option(help="Attribute to build pairs for; all by default. Repeatable.")
    ] = None,
    alignment: Annotated[
        Alignment,
        typer.Option(help="Keep pairs with equal numbers of words, of words and tokens, or all pairs."),
    ] = "words",
    tokenizer: Annotated[
        str | None, typer.Option(help="Model, or tokenizer folder, that counts the tokens.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum pairs per attribute.")] = None,
    report: Report = None,
) -> None:
    """Turn captions into counterfactual pairs by swapping the words of an attribute."""
    from workbench.prompts.attributes import load_attributes
    from workbench.prompts.captions import prompt_captions, read_captions
    from workbench.prompts.counterfactuals import build_candidates
    from workbench.prompts.prompt_sets import load_prompt_set

    known = load_attributes(attribute_set)
    if captions is not None:
        texts = read_captions(captions, column, note)
    else:
        texts = prompt_captions(load_prompt_set(prompts), n_prompts, seed)
    counter = _tokenizer(alignment, tokenizer)
    candidates = build_candidates(
        texts, known, attribute or (), alignment=alignment, tokenizer=counter, limit=limit
    )
    if not candidates:
        raise UserError(
            f"None of the {len(texts)} captions has a word of these attributes. See `workbench pairs attributes`."
        )
    _write(candidates, out, report)


@app.command("filter")
def filter_command(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="CSV file of pairs.")],
    out: Out,
    scorer: Annotated[
        Literal["clap", "clap-laion"], typer.Option(help="Scorer that compares the texts.")
    ] = "clap",
    margin: Annotated[
        float,
        typer.Option(
            min=-2,
            max=2,
            help="Keep pairs whose clean text is closer to the scorer's text by more than this.",
        ),
    ] = 0.0,
    attribute_set: AttributeSetName = ATTRIBUTE_SET,
    report: Report = None,
    device: Device = "cpu",
) -> None:
    """Keep the pairs whose two texts a scorer can tell apart."""
    from workbench.prompts.attributes import load_attributes
    from workbench.prompts.counterfactuals import filter_pairs, scorer_separation
    from workbench.prompts.pair_files import load_pairs
    from workbench.scorers import load_scorer

    loaded = load_pairs(pairs, load_attributes(attribute_set))
    separation = scorer_separation(load_scorer(scorer, device=device))
    with progress("Comparing texts") as advance:
        candidates = filter_pairs(
            [pair for each in loaded.values() for pair in each], separation, margin, advance
        )
    _write(candidates, out, report)


@app.command("import")
def import_command(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="CSV or Parquet file, or a data set's hub id (owner/name)."),
    ],
    out: Out,
    attribute_set: AttributeSetName = ATTRIBUTE_SET,
    attribute: Annotated[
        list[str] | None, typer.Option(help="Attribute to import; all by default. Repeatable.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip invalid rows instead of stopping with an error.")
    ] = False,
) -> None:
    """Check pairs with the paper's columns (original_feature, clean_prompt, corrupted_prompt); fill in the others."""
    from workbench.prompts.attributes import load_attributes
    from workbench.prompts.pair_files import (
        check_rows,
        complete,
        pairs_of,
        read_source,
        row_problems,
        save_pairs,
    )

    known = load_attributes(attribute_set)
    table = complete(read_source(source), source, known)
    if attribute:
        table = table[table["original_feature"].isin(attribute)]
    problems = row_problems(table)
    if skip_bad:
        for problem, count in problems[problems != ""].value_counts().items():
            typer.echo(f"{count} left out: {problem}")
        table = table[problems == ""]
    check_rows(table, source, known)
    if table.empty:
        raise UserError(
            f"{source} has no pairs to import. Check the file, and the attributes given by --attribute."
        )
    save_pairs(out, pairs_of(table))
    for name, count in table["original_feature"].value_counts(sort=False).items():
        typer.echo(f"{name:<14}{count:>8}")
    typer.echo(f"{'all':<14}{len(table):>8}\n{out}")


@app.command("attributes")
def attributes_command(attribute_set: AttributeSetName = ATTRIBUTE_SET) -> None:
    """List the attributes with their counterfactuals, the scorer's text, and the words that are swapped."""
    from workbench.prompts.attributes import load_attributes

    for name, attribute in load_attributes(attribute_set).root.items():
        words = ", ".join(f"{word} → {counterpart}" for word, counterpart in attribute.swaps.items())
        typer.echo(f"{name} → {attribute.counterfactual} (text: {attribute.text}): {words}")


def _tokenizer(alignment: str, name: str | None) -> "Tokenizer | None":
    """Load the tokenizer, if the options ask for it; raise UserError if only one of the two options is given."""
    if (alignment == "tokens") != (name is not None):
        raise UserError("--alignment tokens and --tokenizer go together. Give both or neither.")
    if name is None:
        return None
    from workbench.prompts.captions import load_tokenizer

    return load_tokenizer(name)


def _write(candidates: "list[Candidate]", out: Path, report_file: Path | None) -> None:
    """Write the kept pairs and the report, and print the summary; raise UserError if no pair was kept."""
    from workbench.files import replacing
    from workbench.prompts.counterfactuals import kept_pairs, report, summary
    from workbench.prompts.pair_files import save_pairs

    table = report(candidates)
    typer.echo(summary(table))
    if report_file is not None:
        with replacing(report_file) as partial:
            table.to_csv(partial, index=False)
    pairs = kept_pairs(candidates)
    if not pairs:
        raise UserError(f"No pair was kept, so {out} was not written. The reasons are above.")
    save_pairs(out, pairs)
    typer.echo(out)
