"""The plan of a call: what is read, reused, edited and captured, before anything runs."""

from workbench.engine.batch import RowEdit
from workbench.engine.edits import Edit, ablate, patch
from workbench.engine.rows import CallRows
from workbench.engine.runs import CallLabel
from workbench.engine.sites import Site
from workbench.engine.visit import BlockVisit, plan_call

LABEL = CallLabel(2, 0.5, (0, 1, 0, 1), ("cond", "cond", "null", "null"))
ROWS = CallRows(LABEL, (0, 1, 2, 3), (0, 1, 2, 3))


def planned(*edits: Edit, captured: tuple[str, ...] = (), constant: bool = False) -> list[BlockVisit]:
    """The plan of a call with two blocks, in which clip 1 is edited and reads from clip 0."""
    row_edits = [
        RowEdit(edit, 1, (0,) * len(edit.sources), (7,) if edit.window.segments else None) for edit in edits
    ]
    return plan_call(
        2, lambda block: slice(5 * block, None), ROWS, row_edits, {Site.parse(s) for s in captured}, constant
    )


def sites(block: BlockVisit) -> list[str]:
    return [str(visit.site) for visit in (*block.before, *block.after)]


def test_nothing_to_do_is_nothing_to_visit() -> None:
    assert [(sites(block), block.conditioning) for block in planned()] == [([], ()), ([], ())]
    idle = ablate("tf0.mlp", steps=(3, 9)), ablate("tf0.mlp", passes=("text",))
    assert [sites(block) for block in planned(*idle)] == [[], []]


def test_sites_are_visited_in_order_of_computation_around_the_entry_of_the_cross_attention() -> None:
    names = ("tf1.block", "tf1.cross_attn.q", "tf1.self_attn", "tf1.self_attn.k", "tf1.cross_attn")
    first, second = planned(*map(ablate, names))
    assert sites(first) == []
    assert [str(visit.site) for visit in second.before] == ["tf1.self_attn.k", "tf1.self_attn"]
    assert [str(visit.site) for visit in second.after] == ["tf1.cross_attn.q", "tf1.cross_attn", "tf1.block"]
    assert all(len(visit.edits) == 2 for visit in (*second.before, *second.after)), "in both passes"


def test_an_edit_of_the_conditioning_changes_keys_values_mask_and_positions() -> None:
    whole, _ = planned(patch("tf0.cross_attn", "other"))
    assert sites(whole) == ["tf0.cross_attn.k", "tf0.cross_attn.v"]
    assert [(edit.row, edit.sources) for edit in whole.conditioning] == [(1, (0,)), (3, (2,))]
    values, _ = planned(patch("tf0.cross_attn", "other", parts=("values",)))
    assert (sites(values), values.conditioning) == (["tf0.cross_attn.v"], ())
    mask, _ = planned(patch("tf0.cross_attn", "other", parts=("mask",)))
    assert (sites(mask), len(mask.conditioning)) == ([], 2)


def test_constant_keys_and_values_are_visited_in_every_block() -> None:
    for block in planned(constant=True):
        assert [(visit.site.part, visit.constant) for visit in block.after] == [
            ("cross_attn.k", True), ("cross_attn.v", True),
        ]  # fmt: skip


def test_what_is_captured_is_visited() -> None:
    visits = planned(captured=("tf0.mlp", "tf1.cross_attn.k"), constant=True)
    assert [str(v.site) for block in visits for v in block.after if v.captured] == [
        "tf0.mlp",
        "tf1.cross_attn.k",
    ]
    assert not any(visit.edits for block in visits for visit in block.after)


def test_the_conditioning_is_edited_before_outputs_of_keys_and_values() -> None:
    head = ablate("tf0.cross_attn.k", heads=(0,))
    block, _ = planned(head, patch("tf0.cross_attn", "other"))
    keys = block.after[0]
    assert [edit.edit.operator for edit in keys.edits] == ["patch", "patch", "zero", "zero"]


def test_positions_are_counted_from_the_first_that_a_block_reads() -> None:
    both = planned(patch(("tf0.cross_attn", "tf1.cross_attn"), "other", segments=("text",)))
    assert [block.after[0].edits[0].positions for block in both] == [(7,), (2,)]
    assert [block.conditioning[0].positions for block in both] == [(7,), (2,)]


def test_rows_that_nobody_uses_are_not_edited() -> None:
    idle = CallRows(LABEL, (0, 1, 2), (0, 1, 2, 2), frozenset({(1, "null")}))
    (block,) = plan_call(1, lambda block: slice(None), idle, [RowEdit(ablate("tf0.mlp"), 1)], (), False)
    assert [edit.row for edit in block.after[0].edits] == [1]
