"""A corpus of a few pictures: nobody could learn from it, and all of its parts are there."""

from __future__ import annotations

import pytest

from recipes.world import corpus, vision_labels


def small_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the world's recipe draw a dozen pictures of each kind for this test."""
    monkeypatch.setattr(corpus, "STRANGER_COUNT", 12)
    monkeypatch.setattr(corpus, "SCENE_COUNTS", dict.fromkeys(corpus.SCENE_COUNTS, 12))
    monkeypatch.setattr(corpus, "PRETRAINING_VIEWS", (1,))
    monkeypatch.setattr(vision_labels, "EXTRA_FACES", 4)
    monkeypatch.setattr(vision_labels, "HELDOUT_FACES", 4)
    monkeypatch.setattr(vision_labels, "HELDOUT_PER_KIND", 2)
    monkeypatch.setattr(vision_labels, "HELDOUT_VIEWS", (0,))
