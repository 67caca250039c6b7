"""Matched forgetting, frontiers and sequences as the report derives them from rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pulse_unlearn.report.estimates import LATENT, ON_THE_WAY, RETAIN_MODEL, Numbers, Place
from pulse_unlearn.report.extras import Flag
from pulse_unlearn.report.sequences import draw_matrices, matrix_table, people_of, sequence_table
from pulse_unlearn.report.trajectory import (
    draw_trajectories,
    frontier_table,
    matched_table,
    ways,
)
from pulse_unlearn.scenarios.trajectory import STEP
from test_report_rules import GA, result

NPO = replace(GA, method="NPO")
RETAINED = replace(GA.at(0), condition=RETAIN_MODEL)


def row_at(place: Place, remembered: float, kept: float, *, seed: int = 0):
    """What is known of D_unlearn, what is kept of D_retain, and half as much lost by general."""
    general = (100 + kept) / 2
    return [
        result(place, "forget", "accuracy", 0.1, seed=seed),
        result(place, "forget", LATENT, remembered, seed=seed),
        result(place, "retain", "kept_pct", kept, 4.0, seed=seed),
        result(place, "retain", "latent_kept_pct", 100.0, seed=seed),
        result(place, "general", "kept_pct", general, seed=seed),
    ]


def before(seed: int = 0):
    return [
        result(GA.at(0), "forget", LATENT, 0.9, seed=seed),
        result(RETAINED, "forget", LATENT, 0.3, seed=seed),
    ]


def rows(seed: int = 0):
    """GA goes 0.9, 0.7, 0.2 in steps 0, 10, 20, of which it makes 15; NPO stays up."""
    return [
        *before(seed),
        *row_at(GA.on_the_way(0), 0.9, 100, seed=seed),
        *row_at(GA.on_the_way(10), 0.7, 80, seed=seed),
        *row_at(GA.on_the_way(20), 0.2, 40, seed=seed),
        *row_at(GA, 0.2, 40, seed=seed),
        *row_at(NPO.on_the_way(0), 0.9, 100, seed=seed),
        *row_at(NPO, 0.78, 95, seed=seed),
    ]


def stopped(place: Place, steps: int, *, seed: int = 0) -> Flag:
    return Flag(
        scenario=place.scenario,
        method=place.method,
        scope=place.scope,
        seed=str(seed),
        request=str(place.request),
        flag="stopped",
        detail=f"{steps} steps, stopped by loss_bound",
    )


FLAGS = (stopped(GA, 15),)


def printed(table):
    return [(row.heads, [cell.value for cell in row.cells]) for row in table.rows]


def test_the_plan_and_the_report_call_the_steps_alike():
    assert ON_THE_WAY == STEP


def test_a_way_ends_with_the_operation_whatever_steps_were_asked_for():
    """Mutation: step 20 kept as a step of its own, which stretches the last line to 20."""
    way = ways(Numbers(rows()), GA, FLAGS)[0]
    assert [point.step for point in way.path] == [0, 10, 15]
    assert [point.step for point in ways(Numbers(rows()), GA, ())[0].path] == [0, 10, 20, None]
    assert (way.before, way.floor) == (0.9, 0.3)


def test_methods_are_compared_where_as_much_is_forgotten():
    """Half way is 0.6: a fifth of the line from 0.7 at step 10 to 0.2 at step 15; 0.3 four."""
    table = matched_table(Numbers(rows()), FLAGS)
    assert table is not None
    assert table.columns == ("at step", "D_retain kept", "General ability kept")
    assert printed(table) == [
        (
            ("Fine-tuned knowledge", "60.0 %, half of the way", "GA", "Proj, LLM"),
            ["11.0", "72.0", "86.0"],
        ),
        (
            ("Fine-tuned knowledge", "60.0 %, half of the way", "NPO", "Proj, LLM"),
            ["never", "–", "–"],
        ),
        (
            ("Fine-tuned knowledge", "30.0 %, the retain model", "GA", "Proj, LLM"),
            ["14.0", "48.0", "74.0"],
        ),
        (
            ("Fine-tuned knowledge", "30.0 %, the retain model", "NPO", "Proj, LLM"),
            ["never", "–", "–"],
        ),
    ]
    assert table.rows[1].cells[0].beside == ("78.0 % at the least",)
    assert table.rows[0].cells[1].beside == ("latent 100.0",)


def test_the_area_under_a_frontier_is_that_of_the_set_that_kept_least():
    """GA's points: (0, 1), (1/3, .8), and the end, cut at all forgotten, (1, .4)."""
    table = frontier_table(Numbers(rows()), FLAGS)
    assert table is not None
    area = 100 * (0.9 / 3 + 0.6 * 2 / 3)
    assert table.columns == ("least of the sets", "D_retain", "General ability")
    (_, ga), (_, npo) = printed(table)
    assert ga[:2] == [f"{area:.1f}"] * 2
    assert npo[0] == "19.5"  # (0, 1), (.2, .95): nothing beyond
    assert all(cell.interval == "" for row in table.rows for cell in row.cells)  # one run


def test_several_seeds_have_a_mean_an_interval_and_those_that_get_there_are_counted():
    third = [
        *before(2),
        *row_at(GA.on_the_way(0), 0.9, 100, seed=2),
        *row_at(GA, 0.65, 90, seed=2),
    ]
    second = [
        *before(1),
        *row_at(GA.on_the_way(0), 0.9, 100, seed=1),
        *row_at(GA, 0.3, 60, seed=1),
    ]
    numbers = Numbers([*rows(), *second, *third])
    flags = (*FLAGS, stopped(GA, 20, seed=1), stopped(GA, 20, seed=2))
    table = matched_table(numbers, flags)
    assert table is not None
    at, retained, *_ = table.rows[0].cells
    assert (at.value, at.beside) == ("10.5", ("2 of 3 seeds get there",))  # 11 and 10
    assert retained.value == "76.0"  # 72 and 80
    assert retained.interval.startswith("25.2 – ")  # 76 - 12.706 * 4
    assert "2 of 3 seeds" in retained.beside


def test_without_a_retain_model_the_way_goes_down_to_chance():
    without = [one for one in rows() if one.cell.condition != RETAIN_MODEL]
    chance = result(GA, "forget", "chance", 0.25)
    assert ways(Numbers([*without, chance]), GA, FLAGS)[0].floor == 0.25
    table = matched_table(Numbers([*without, chance]), FLAGS)
    assert table is not None
    assert table.rows[2].heads[1].endswith("chance")


def test_a_retain_model_that_knows_as_much_leaves_nothing_to_compare():
    known = [r for r in rows() if r.cell.condition != RETAIN_MODEL]
    table = matched_table(Numbers([*known, result(RETAINED, "forget", LATENT, 0.9)]), FLAGS)
    assert table is not None
    assert {cell.value for row in table.rows for cell in row.cells} == {"–"}
    assert "known no better before" in table.notes[0][1]


def test_without_steps_there_is_nothing_to_show():
    plain = Numbers([one for one in rows() if not one.cell.condition.startswith(ON_THE_WAY)])
    assert matched_table(plain, FLAGS) is None
    assert frontier_table(plain, FLAGS) is None
    assert draw_trajectories(plain) is None


def test_the_figure_goes_to_every_end_and_leaves_out_who_has_only_one():
    drawn = draw_trajectories(Numbers([*rows(), *row_at(replace(GA, method="MANU"), 0.5, 50)]))
    assert drawn is not None
    assert "D_unlearn remembered, %" in drawn.svg
    assert "D_retain kept, %" in drawn.svg
    assert "Unseen" not in drawn.svg


# --- sequences

LAST = Place("sustainability", "GA", "projector+llm", 3)
KNOWN = ((0.9, 0.3, 0.4, 0.5), (0.8, 0.7, 0.2, 0.1), (0.9, 0.8, 0.6, 0.3))
"""People of each request, before and after each."""
GENERAL = (0.8, 0.75, 0.7, 0.4)


def sequence_rows():
    found = []
    for after in range(4):
        at = LAST.at(after)
        for turn, line in enumerate(KNOWN, start=1):
            found.append(result(at, people_of(turn), LATENT, line[after]))
        found.append(result(at, "forget", LATENT, (0.9, 0.6, 0.4, 0.3)[after]))
        found.append(result(at, "general", "accuracy", GENERAL[after]))
    return found


def test_a_sequence_in_one_row():
    """Rebound .2 and -.1; lost before their turn .1 and .3; 0.9 of 0.8 is .72, above .7."""
    table = sequence_table(Numbers(sequence_rows()))
    assert table is not None
    (row,) = table.rows
    assert [cell.value for cell in row.cells] == [
        *("5.0", "20.0", "request 2"),
        *("53.3", "–", "–", "68.3"),
    ]
    assert row.cells[0].beside == ("most 20.0",)
    assert row.cells[1].beside == ("most 30.0",)


def test_the_matrix_has_a_row_for_each_requests_people():
    numbers = Numbers(sequence_rows())
    table = matrix_table(numbers)
    assert table is not None
    assert printed(table)[1] == (("Sustainability", "GA", "2"), ["80.0", "70.0", "20.0", "10.0"])
    drawn = draw_matrices(numbers)
    assert drawn is not None
    assert "request 3" in drawn.svg
    single = Numbers([result(GA, "forget", LATENT, 0.4)])
    assert (matrix_table(single), sequence_table(single), draw_matrices(single)) == (None,) * 3


@pytest.mark.parametrize("general", [(0.8, 0.8, 0.8, 0.8), (0.0, 0.0, 0.0, 0.0)])
def test_a_sequence_may_have_no_cliff(general):
    kept = [one for one in sequence_rows() if one.measurement.set != "general"]
    kept += [result(LAST.at(k), "general", "accuracy", v) for k, v in enumerate(general)]
    table = sequence_table(Numbers(kept))
    assert table is not None
    assert table.rows[0].cells[2].value == ("never" if general[0] else "–")
