"""What an edit of each target must have: its sites, and what its window may restrict."""

from typing import TYPE_CHECKING

from cache.errors import UserError
from workbench.engine.edits.window import CONDITIONING_PARTS
from workbench.engine.operators import Difference, operator_named
from workbench.engine.sites import LINEAR_PARTS, Site

if TYPE_CHECKING:
    from workbench.engine.edits.edit import Edit

_PER_HEAD = ("q", "k", "v", "heads")


def check_target(edit: "Edit") -> None:
    """Raise UserError if an edit's sites or window do not fit its target."""
    _CHECKS[edit.target](edit)


def _check_output(edit: "Edit") -> None:
    window = edit.window
    if window.segments is not None or window.parts is not None:
        raise UserError("Segments and parts are for edits of the conditioning, not of outputs.")
    parts = {site: Site.parse(site).part.rpartition(".")[2] for site in edit.sites}
    without = [site for site, part in parts.items() if part not in _PER_HEAD]
    if window.heads is not None and without:
        raise UserError(f"{without[0]} has no separate heads. Use .heads, .q, .k or .v of its attention.")
    if (read := edit.parameters.read_site) is not None:
        _check_read(edit, read)


def _check_read(edit: "Edit", read: Site) -> None:
    """Raise UserError for sites, or a window, of which an edit cannot get the values of another site in the call."""
    for site in map(Site.parse, edit.sites):
        if not read.leads_to(site):
            raise UserError(
                f"{site} cannot be reconstructed from {read}, which is not computed before it, or not along the same "
                "tokens. Give the site that the transcoder reconstructs."
            )
    if edit.window.heads is not None:
        raise UserError("An edit with a transcoder cannot be of heads. Leave them out.")


def _check_conditioning(edit: "Edit") -> None:
    window = edit.window
    wrong = [site for site in edit.sites if Site.parse(site).part != "cross_attn"]
    if wrong:
        raise UserError(
            f"An edit of the conditioning must be at cross_attn sites; got {', '.join(wrong)}. {_advice(edit)}"
        )
    if window.tokens is not None or window.heads is not None:
        raise UserError(
            f"An edit of the conditioning cannot have a window of latent tokens or heads. {_advice(edit)}"
        )
    if not set(edit.conditioning_parts) <= set(CONDITIONING_PARTS):
        raise UserError(f"Parts must be at least one of {', '.join(CONDITIONING_PARTS)}.")
    if not operator_named(edit.operator).takes and edit.conditioning_parts not in (("keys",), ("values",)):
        raise UserError(
            f"'{edit.operator}' must have one part, keys or values; got {', '.join(edit.conditioning_parts)}."
        )


def _check_weights(edit: "Edit") -> None:
    parts = {site: Site.parse(site).part for site in edit.sites}
    without = [site for site, part in parts.items() if part not in LINEAR_PARTS]
    if without:
        raise UserError(
            f"{without[0]} is not the output of one linear module, so it has no weights to change. Use sites with the "
            f"parts {', '.join(LINEAR_PARTS)}."
        )
    restricted = set(edit.window.options) - {"steps", "sigmas", "passes"}
    if restricted:
        raise UserError(
            "A change of weights acts on every token and channel: its window can have steps, sigmas and passes; got "
            f"{', '.join(sorted(restricted))}."
        )


def _check_velocity(edit: "Edit") -> None:
    if edit.sites:
        raise UserError(f"An edit of the velocity has no sites; got {', '.join(edit.sites)}.")
    window = edit.window
    restricted = set(window.options) - {"steps", "sigmas", "passes"}
    if restricted or window.passes is None or len(window.passes) != 1:
        raise UserError(
            "The window of an edit of the velocity can have steps and sigmas, and must have one pass, whose velocities "
            f"are read; got {', '.join(sorted(window.options)) or 'none'}."
        )
    if isinstance(edit.parameters, Difference) and edit.parameters.constant:
        raise UserError("A difference of velocities cannot be constant, because a velocity has no tokens.")


def _advice(edit: "Edit") -> str:
    """Say how to edit the outputs of sites, for which a conditioning edit was given."""
    if "output" in operator_named(edit.operator).targets:
        return 'To edit the output of a site, use target="output" (--mode output on the command line).'
    return f"To edit the output of a site, use an edit other than '{edit.operator}'."


_CHECKS = {
    "weights": _check_weights,
    "output": _check_output,
    "conditioning": _check_conditioning,
    "velocity": _check_velocity,
}
