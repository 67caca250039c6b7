"""Stages that choose people by stored answers: what they decide, and what is told of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from pulse_unlearn.evaluation.matching import Confidence, Pair, confidences, match
from pulse_unlearn.evaluation.measures import correct_probability, rotated_probability
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.pipeline.decisions import select_known
from pulse_unlearn.records import Prediction, QuestionScore
from pulse_unlearn.scenarios import ChoosingStage, MatchStage, SelectStage

SELECTION = "selection.json"
"""Whom a stage chose, and the evidence."""


def choose(stage: ChoosingStage, asked: Sequence[Prediction]) -> dict[str, Any]:
    """Return what a stage chooses by these answers, as its file holds it."""
    # `rotated` is no parser: what the text says does not matter there.
    parser = "strict" if stage.decides == "rotated" else stage.decides
    scores = by_question(asked, score_all(asked, parser=parser))
    if isinstance(stage, MatchStage):
        return _matched(stage, scores)
    if isinstance(stage, SelectStage):
        return _selected(stage, scores)
    raise TypeError(f"{stage.name} chooses nobody")


def forgotten_and_kept(chosen: Mapping[str, Any]) -> list[tuple[tuple[str, tuple[str, ...]], ...]]:
    """Return D_unlearn and D_retain of each operation that a choice is for."""
    parts = [name for name in ("forget", "first", "second") if name in chosen]
    return [(("forget", tuple(chosen[n])), ("retain", tuple(chosen["retain"]))) for n in parts]


def _selected(stage: SelectStage, scores: Sequence[QuestionScore]) -> dict[str, Any]:
    selection = select_known(
        scores,
        frozenset(stage.candidates.ids),
        forget=stage.settings.forget,
        retain=stage.settings.retain,
        unseen=stage.unseen,
        seed=stage.seed,
        decides=stage.decides,
    )
    return {
        **asdict(selection),
        "perfect": selection.perfect,
        "questions": stage.settings.select_on,
    }


def _matched(stage: MatchStage, scores: Sequence[QuestionScore]) -> dict[str, Any]:
    measure = rotated_probability if stage.decides == "rotated" else correct_probability
    known, settings = confidences(scores, measure), stage.settings
    groups = [[known[one] for one in ids if one in known] for _, ids in stage.arms]
    pairs = list(
        match(
            *groups,
            count=settings.forget + settings.retain,
            caliper=settings.caliper,
            at_least=settings.at_least,
        )
    )
    random.Random(stage.seed).shuffle(pairs)
    forget, retain = pairs[: settings.forget], pairs[settings.forget :]
    first, second = [pair.first for pair in forget], [pair.second for pair in forget]
    paired = {one for pair in pairs for one in (pair.first, pair.second)}
    left = [known[one] for one in stage.candidates.ids if one in known and one not in paired]
    best = [one.id for one in sorted(left, key=lambda one: (-one.mean, one.id))]
    celebrities = [one for one in best if one not in stage.taught]
    taught = [one for one in best if one in stage.taught]
    return {
        "arms": [label for label, _ in stage.arms],
        "first": first,
        "second": second,
        "retain": [*(pair.first for pair in retain), *(pair.second for pair in retain)],
        "unseen": celebrities[: stage.unseen],
        "unseen_fictional": taught[: stage.unseen_fictional],
        "others": celebrities[stage.unseen :],
        "without_first": [one for one in stage.taught if one not in first],
        "without_second": [one for one in stage.taught if one not in second],
        "pairs": [
            {**asdict(pair), "set": name}
            for name, chosen in (("forget", forget), ("retain", retain))
            for pair in chosen
        ],
        "confidence": {one: dict(known[one].by_modality) for one in stage.candidates.ids},
        "balance": _balance(forget, groups),
        "questions": "other_view",
    }


def _balance(pairs: Sequence[Pair], groups: Sequence[Sequence[Confidence]]) -> dict[str, Any]:
    """Return how alike the two D_unlearns are, and how alike both groups were as a whole."""
    first, second = ({one.id: one for one in group} for group in groups)
    sides = [[first[pair.first] for pair in pairs], [second[pair.second] for pair in pairs]]
    modalities = sorted({name for side in sides for one in side for name in one.by_modality})
    return {
        "mean": [fmean(one.mean for one in side) for side in sides],
        "by_modality": {
            name: [
                fmean(one.by_modality[name] for one in side if name in one.by_modality)
                for side in sides
            ]
            for name in modalities
        },
        "apart": fmean(pair.apart for pair in pairs),
        "furthest": max(pair.apart for pair in pairs),
        "everybody": [fmean(one.mean for one in group) for group in groups],
    }


def told_of(stage: ChoosingStage, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `results.json` says of a choice."""
    told = {"stage": stage.name, "decides": stage.decides, "questions": chosen["questions"]}
    if isinstance(stage, MatchStage):
        settings = stage.settings
        limits = {"caliper": settings.caliper, "at_least": settings.at_least}
        sizes = {"forget": settings.forget, "retain": settings.retain}
        return {**told, **sizes, **limits, "arms": chosen["arms"], **chosen["balance"]}
    last = min(one["accuracy"] for one in chosen["candidates"] if one["chosen"])
    sizes = {name: len(chosen[name]) for name in ("forget", "retain", "unseen")}
    counts = {"candidates": len(chosen["candidates"]), "perfect": chosen["perfect"]}
    return {**told, **counts, **sizes, "lowest_chosen": last}


def note_of(stage: MatchStage, chosen: Mapping[str, Any]) -> str:
    """Say how equally known the people of both arms are: what remains after pairing."""
    balance, (one, other) = chosen["balance"], chosen["arms"]
    mean, all_of = balance["mean"], balance["everybody"]
    return (
        f"{stage.name.partition('/')[0]}: people of {one} and {other} are paired by the model's "
        f"probability of the true option on {chosen['questions']} questions: {mean[0]:.3f} against "
        f"{mean[1]:.3f} on average in D_unlearn ({all_of[0]:.3f} against {all_of[1]:.3f} over all "
        f"candidates), {balance['apart']:.3f} apart within a pair on average and "
        f"{balance['furthest']:.3f} at most"
    )
