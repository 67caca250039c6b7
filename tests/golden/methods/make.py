"""Writes losses.json: `python make.py`. The losses written anew from their papers, in numpy alone.

Everything starts from logits, one example and one answer token at a time, and gradients are central
differences; nothing is shared with the package. Weights and targets that a paper holds constant
are computed from `held`, which the differences do not move.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LENGTHS = {"forget": (3, 1), "retain": (2, 3), "alternative": (1, 2), "decoupled": (3, 2)}
POSITIONS, VOCABULARY = 3, 5
LETTERS = ((0, 2, 3), (1, 4))
"""Vocabulary entries that begin a letter of each forget example's options."""
OPTIONS = {"options": ((4, 4, 4), (3, 3, 0)), "option_words": ((4,), (0,))}
"""Options in each form of each forget question: orders, and in words; 0 where it was not asked."""
DRAWN = (2, 0)
"""Place of the option drawn for each forget question."""
STEP = 1e-5


def inputs():
    """Logits and labels of batches of two, answers right-aligned, and of the reference.

    And log-probabilities of options, which nothing says are normalised.
    """
    drawn = np.random.default_rng(20261128)
    made = {}
    for name in LENGTHS:
        shape = (2, POSITIONS, VOCABULARY)
        made[name] = np.round(drawn.normal(scale=1.5, size=shape), 3)
        made[f"{name}_reference"] = np.round(drawn.normal(scale=1.5, size=shape), 3)
        made[f"{name}_labels"] = drawn.integers(VOCABULARY, size=shape[:2])
    for name, counts in OPTIONS.items():
        made[name] = np.round(drawn.normal(scale=1.5, size=(2, len(counts[0]), 4)), 3)
    return made


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


class Answer:
    """The answer tokens of one example: current, reference and held-constant probabilities."""

    def __init__(self, made, held, batch, row):
        places = range(POSITIONS - LENGTHS[batch][row], POSITIONS)
        self.p = [softmax(made[batch][row, t]) for t in places]
        self.q = [softmax(made[f"{batch}_reference"][row, t]) for t in places]
        self.held = [softmax(held[batch][row, t]) for t in places]
        self.labels = [int(made[f"{batch}_labels"][row, t]) for t in places]
        self.letters = LETTERS[row]

    def nll(self):
        return -sum(np.log(p[y]) for p, y in zip(self.p, self.labels, strict=True))

    def reference_nll(self):
        return -sum(np.log(q[y]) for q, y in zip(self.q, self.labels, strict=True))

    def mean(self, value):
        parts = zip(self.p, self.q, self.held, self.labels, strict=True)
        return sum(value(*part) for part in parts) / len(self.p)


class Options:
    """The options of one example: their probabilities among themselves in each form."""

    def __init__(self, made, row):
        counts = [OPTIONS[name][row] for name in OPTIONS]
        self.orders, self.words = (
            [softmax(form[:n]) for form, n in zip(made[name][row], of, strict=True) if n]
            for name, of in zip(OPTIONS, counts, strict=True)
        )
        self.own = made["options"][row][0]
        self.drawn = DRAWN[row]


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def kl(p, q):
    return float(np.sum(p * np.log(p / q)))


def js(p, q):
    return kl(p, (p + q) / 2) / 2 + kl(q, (p + q) / 2) / 2


def js_to(p, y):
    sure = np.zeros(VOCABULARY)
    sure[y] = 1.0
    middle = (p + sure) / 2
    return kl(p, middle) / 2 + np.log(1.0 / middle[y]) / 2


def ascent(f):
    return -f.mean(lambda p, q, h, y: -np.log(p[y]))


def descent(a):
    return a.mean(lambda p, q, h, y: -np.log(p[y]))


def forward_kl(a):
    return a.mean(lambda p, q, h, y: kl(q, p))


def reweighted(f, b1, b2):
    return -f.mean(lambda p, q, h, y: h[y] ** b1 * (1 - h[y]) ** b2 * -np.log(p[y]))


def lowered(f, beta):
    def token(p, q, h, y):
        logits = np.log(q)
        logits[y] -= beta
        return -np.sum(softmax(logits) * np.log(p))

    return f.mean(token)


def without(f):
    def token(p, q, h, y):
        target = h.copy()
        target[y] = 0.0
        return -np.sum(target / target.sum() * np.log(p))

    return f.mean(token)


def npo(f, beta):
    return -2 / beta * log_sigmoid(beta * (f.nll() - f.reference_nll()))


def simnpo(f, beta, margin):
    return -2 / beta * log_sigmoid(beta * (f.nll() / len(f.p) - margin))


def dpo(f, a, beta):
    won, lost = a.reference_nll() - a.nll(), f.reference_nll() - f.nll()
    return -2 / beta * log_sigmoid(beta * (won - lost))


def squared_peak(f):
    logits = [np.log(p) + 17.0 for p in f.p]  # logits: any constant more
    return sum((z.max() - z.mean()) ** 2 for z in logits) / len(logits)


def to_levelled(f):
    first = f.q[0].copy()
    first[list(f.letters)] = f.q[0][list(f.letters)].sum() / len(f.letters)
    targets = [first, *f.q[1:]]
    return sum(kl(q, p) for q, p in zip(targets, f.p, strict=True)) / len(f.p)


def from_flat(p):
    return kl(np.full(len(p), 1 / len(p)), p)


def flat_orders(o):
    return sum(from_flat(p) for p in o.orders) / len(o.orders)


def flat_average(o):
    powers = np.prod(o.orders, axis=0) ** (1 / len(o.orders))
    return from_flat(powers / powers.sum())


CASES = {
    # name: (method, settings, (weight, batch of the term, value of forget, retain, alternative))
    "ga": ("ga", {}, [(1, "forget", lambda f, r, a, *_: ascent(f))]),
    "grad_diff": (
        "grad_diff",
        {"forget_weight": 0.5, "retain_weight": 2.0},
        [
            (0.5, "forget", lambda f, r, a, *_: ascent(f)),
            (2.0, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "kl_min": (
        "kl_min",
        {"retain_weight": 0.7},
        [
            (1, "forget", lambda f, r, a, *_: ascent(f)),
            (0.7, "retain", lambda f, r, a, *_: forward_kl(r)),
        ],
    ),
    "npo": ("npo", {"beta": 0.4}, [(1, "forget", lambda f, r, a, *_: npo(f, 0.4))]),
    "npo with both retain terms": (
        "npo",
        {"beta": 0.1, "retain_weight": 1.0, "retain_kl_weight": 0.3},
        [
            (1, "forget", lambda f, r, a, *_: npo(f, 0.1)),
            (1.0, "retain", lambda f, r, a, *_: descent(r)),
            (0.3, "retain", lambda f, r, a, *_: forward_kl(r)),
        ],
    ),
    "simnpo": (
        "simnpo",
        {"margin": 0.25},
        [
            (0.1375, "forget", lambda f, r, a, *_: simnpo(f, 2.5, 0.25)),
            (1, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "dpo": (
        "dpo",
        {"beta": 0.3, "retain_weight": 1.0},
        [
            (1, "forget", lambda f, r, a, *_: dpo(f, a, 0.3)),
            (1, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "idk": (
        "idk",
        {"forget_weight": 0.8},
        [
            (0.8, "forget", lambda f, r, a, *_: descent(a)),
            (1, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "wga": (
        "wga",
        {"beta": 0.5, "retain_weight": 0.0},
        [(1, "forget", lambda f, r, a, *_: reweighted(f, 0.5, 0))],
    ),
    "sat_imp": (
        "sat_imp",
        {},
        [
            (0.1, "forget", lambda f, r, a, *_: reweighted(f, 5, 1)),
            (1, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "undial": (
        "undial",
        {"beta": 3.0, "retain_weight": 0.5},
        [
            (1, "forget", lambda f, r, a, *_: lowered(f, 3.0)),
            (0.5, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "ce_u": ("ce_u", {}, [(1, "forget", lambda f, r, a, *_: without(f))]),
    "jensun": (
        "jensun",
        {"retain_weight": 0.6},
        [
            (1, "forget", lambda f, r, a, *_: a.mean(lambda p, q, h, y: js_to(p, y))),
            (0.6, "retain", lambda f, r, a, *_: r.mean(lambda p, q, h, y: js(p, q))),
        ],
    ),
    "jensun with labels": (
        "jensun",
        {"retain_target": "labels"},
        [
            (1, "forget", lambda f, r, a, *_: a.mean(lambda p, q, h, y: js_to(p, y))),
            (1, "retain", lambda f, r, a, *_: r.mean(lambda p, q, h, y: js_to(p, y))),
        ],
    ),
    "llmu": (
        "llmu",
        {},
        [
            (0.5, "forget", lambda f, r, a, *_: ascent(f)),
            (1, "forget", lambda f, r, a, *_: descent(a)),
            (1, "retain", lambda f, r, a, *_: forward_kl(r)),
        ],
    ),
    "alt_po": (
        "alt_po",
        {"beta": 0.2},
        [
            (1, "forget", lambda f, r, a, *_: dpo(f, a, 0.2)),
            (1, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "pdu": (
        "pdu",
        {"forget_weight": 0.1, "dual_start": 0.4},
        [
            (0.1, "forget", lambda f, r, a, *_: squared_peak(f)),
            (0.4, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "levelled": (
        "levelled",
        {"retain_weight": 0.5},
        [
            (1, "forget", lambda f, r, a, *_: to_levelled(f)),
            (0.5, "retain", lambda f, r, a, *_: forward_kl(r)),
        ],
    ),
    "df_mcq": (
        "df_mcq",
        {"letters_weight": 0.5, "average_weight": 2.0, "words_weight": 0.3},
        [
            (0.5, "forget", lambda f, r, a, d, o: flat_orders(o)),
            (2.0, "forget", lambda f, r, a, d, o: flat_average(o)),
            (0.3, "forget", lambda f, r, a, d, o: sum(from_flat(p) for p in o.words)),
            (1, "retain", lambda f, r, a, *_: descent(r)),
        ],
    ),
    "df_mcq as published": (
        "df_mcq",
        {"orders": "one", "words_weight": 0.0, "retain_weight": 0.0},
        [(1, "forget", lambda f, r, a, d, o: from_flat(o.orders[0]))],
    ),
    "pulse": (  # what is said aside is taken from the alternative answers
        "pulse",
        {"letters_weight": 3.0, "words_weight": 0.5, "retain_weight": 2.0},
        [
            (3.0, "forget", lambda f, r, a, d, o: -o.own[o.drawn]),
            (0.5, "forget", lambda f, r, a, d, o: -sum(np.log(p[o.drawn]) for p in o.words)),
            (0.5, "forget", lambda f, r, a, *_: descent(a)),
            (2.0, "retain", lambda f, r, a, *_: forward_kl(r)),
        ],
    ),
    "safe_eraser": (
        "safe_eraser",
        {"loss": {"method": "grad_diff", "weight": 0.5}},
        [
            (0.5, "forget", lambda f, r, a, *_: ascent(f)),
            (0.5, "retain", lambda f, r, a, *_: descent(r)),
            (0.5, "forget", lambda f, r, a, d, o: descent(d)),
        ],
    ),
}


def values(parts, made, held):
    """The value of each term for each example."""
    rows = [
        [*(Answer(made, held, batch, row) for batch in LENGTHS), Options(made, row)]
        for row in (0, 1)
    ]
    return [[float(value(*row)) for row in rows] for _, _, value in parts]


def total(parts, made, held):
    weights = [weight for weight, _, _ in parts]
    found = values(parts, made, held)
    return sum(w * sum(term) for w, term in zip(weights, found, strict=True))


def gradient(parts, made, batch):
    """Of the weighted sum of all values, by the logits of one batch."""
    found = np.zeros_like(made[batch])
    for place in np.ndindex(found.shape):
        sides = []
        for sign in (1, -1):
            moved = made | {batch: made[batch].copy()}
            moved[batch][place] += sign * STEP
            sides.append(total(parts, moved, made))
        found[place] = (sides[0] - sides[1]) / (2 * STEP)
    return np.round(found, 9) + 0.0


def document():
    made = inputs()
    cases = {}
    for name, (method, settings, parts) in CASES.items():
        terms = [
            {"over": over, "weight": weight, "values": found}
            for (weight, over, _), found in zip(parts, values(parts, made, made), strict=True)
        ]
        gradients = {batch: gradient(parts, made, batch) for batch in (*LENGTHS, *OPTIONS)}
        cases[name] = {
            "method": method,
            "settings": settings,
            "terms": terms,
            "gradients": {k: v.tolist() for k, v in gradients.items() if v.any()},
        }
    return {
        "lengths": LENGTHS,
        "letters": LETTERS,
        "options": OPTIONS,
        "drawn": DRAWN,
        "inputs": {name: part.tolist() for name, part in made.items()},
        "cases": cases,
    }


if __name__ == "__main__":
    text = json.dumps(document(), separators=(",", ":")).replace('},"', '},\n"')
    (HERE / "losses.json").write_text(text + "\n", encoding="utf-8")
