"""Matched forgetting, frontiers and sequences, held against numbers worked out by hand."""

from __future__ import annotations

import pytest

from pulse_unlearn.evaluation.trajectories import (
    Point,
    area_over,
    area_under,
    cliff,
    eroded_before_turn,
    first_down_to,
    frontier,
    level_of,
    rebound,
    with_least,
)


def way(*points):
    """A path of (step, remembered, retain kept)."""
    return [Point(step, remembered, {"retain": kept}) for step, remembered, kept in points]


STRAIGHT = way((0, 0.9, 1.0), (10, 0.7, 0.8), (20, 0.3, 0.6))


def test_a_level_is_a_share_of_the_way_from_before_to_the_floor():
    assert level_of(0.9, 0.3, 0.5) == pytest.approx(0.6)
    assert level_of(0.9, 0.3, 1.0) == pytest.approx(0.3)


def test_what_is_kept_at_a_level_lies_on_the_line_between_two_steps():
    found = first_down_to(STRAIGHT, 0.6)  # a quarter of the way from 0.7 to 0.3
    assert found is not None
    assert found.step == pytest.approx(12.5)
    assert found.kept["retain"] == pytest.approx(0.75)
    assert found.remembered == 0.6


def test_the_first_time_counts_and_a_level_that_is_met_exactly_is_reached():
    path = way((0, 0.9, 1.0), (5, 0.5, 0.9), (10, 0.8, 0.5), (20, 0.2, 0.1))
    found = first_down_to(path, 0.5)
    assert found is not None
    assert (found.step, found.kept) == (5.0, {"retain": pytest.approx(0.9)})


def test_a_path_that_never_gets_there_says_so_and_one_that_begins_there_does_at_once():
    assert first_down_to(STRAIGHT, 0.29) is None
    assert first_down_to([], 0.5) is None
    assert first_down_to(STRAIGHT, 0.95) is STRAIGHT[0]


def test_a_set_that_was_measured_on_one_side_alone_is_not_made_up_for_the_other():
    path = [Point(0, 1.0, {"retain": 1.0, "unseen": 1.0}), Point(None, 0.0, {"retain": 0.0})]
    found = first_down_to(path, 0.5)
    assert found is not None
    assert (found.step, found.kept) == (None, {"retain": 0.5})


def test_the_area_under_a_frontier_by_hand():
    """Forgotten 0, 1/3, 1 with 1, .8, .6 kept: (1/3)(.9) + (2/3)(.7)."""
    points = frontier(STRAIGHT, "retain", before=0.9, floor=0.3)
    assert points == [
        (0.0, 1.0),
        (pytest.approx(1 / 3), pytest.approx(0.8)),
        (1.0, pytest.approx(0.6)),
    ]
    assert area_under(points) == pytest.approx(0.3 + 1.4 / 3)


def test_a_point_that_another_beats_in_both_is_not_on_the_frontier():
    path = way((0, 1.0, 1.0), (5, 0.6, 0.3), (10, 0.4, 0.9))
    assert frontier(path, "retain", before=1.0, floor=0.0) == [(0.0, 1.0), (0.6, 0.9)]
    assert area_under([(0.0, 1.0), (0.6, 0.9)]) == pytest.approx(0.6 * 0.95)


def test_a_perfect_method_has_area_1_and_one_that_forgets_nothing_or_keeps_nothing_little():
    perfect = way((0, 0.9, 1.0), (1, 0.3, 1.2))  # below the floor, above before: cut
    assert area_under(frontier(perfect, "retain", before=0.9, floor=0.4)) == 1.0
    idle = way((0, 0.9, 1.0), (9, 0.95, 1.0))
    assert area_under(frontier(idle, "retain", before=0.9, floor=0.4)) == 0.0
    vandal = way((0, 0.9, 1.0), (9, 0.4, 0.0))
    assert area_under(frontier(vandal, "retain", before=0.9, floor=0.4)) == pytest.approx(0.5)


def test_there_is_no_frontier_where_nothing_was_there_to_forget():
    assert frontier(STRAIGHT, "retain", before=0.3, floor=0.3) == []
    assert area_under([]) == 0.0


def test_the_least_of_the_sets_is_never_more_than_all():
    kept = {"retain": 0.8, "general": 1.1}
    assert with_least(kept, ("retain", "unseen", "general"), "least")["least"] == 0.8
    assert with_least({"general": 1.1}, ("general",), "least")["least"] == 1.0
    assert "least" not in with_least({"general": 1.1}, ("retain",), "least")


def test_the_cliff_is_the_first_request_below_a_share_of_before():
    assert cliff([0.8, 0.75, 0.71, 0.73, 0.5]) == 2  # 0.9 of 0.8 is 0.72
    assert cliff([0.8, 0.75, 0.73]) is None
    assert cliff([0.8, None, 0.5]) == 2
    assert cliff([0.8, 0.75, 0.71], share=0.5) is None
    assert cliff([0.0, 0.0]) is None
    assert cliff([None, 0.1]) is None


def test_rebound_is_what_a_request_regains_by_the_end():
    row = [0.9, 0.2, 0.3, 0.5]  # people of request 1
    assert rebound(row, 1) == pytest.approx(0.3)
    assert rebound([0.9, 0.9, 0.2, 0.1], 2) == pytest.approx(-0.1)
    assert rebound([0.9, 0.9, 0.9, 0.2], 3) is None  # nothing follows
    assert rebound([0.9, None, 0.3, 0.5], 1) is None


def test_erosion_is_what_is_lost_before_a_request_has_its_turn():
    row = [0.9, 0.8, 0.7, 0.1]  # people of request 3
    assert eroded_before_turn(row, 3) == pytest.approx(0.2)
    assert eroded_before_turn(row, 1) is None  # nothing precedes
    assert eroded_before_turn([None, 0.8, 0.1], 2) is None


def test_the_area_over_a_sequence_is_the_mean_height_of_its_line():
    assert area_over([1.0, 0.5, 0.0]) == pytest.approx(0.5)
    assert area_over([1.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert area_over([1.0, None, 0.0]) is None
    assert area_over([1.0]) is None
