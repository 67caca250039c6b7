"""How `costs` counts each part of the memory, in words, for printing."""

from __future__ import annotations

from pulse_unlearn.models.costs import RESERVE

LETTERS = (
    "b bytes of a weight, w width, i width inside the MLP, q of all heads, k of key heads, "
    "h heads, l layers, r rank, B sequences at once, T tokens of the longest, A of its answer, "
    "V vocabulary, P trained parameters"
)
FORMULAS = {
    "weights": "parameters x b",
    "8bit": "parameters x b, linear layers of the language model x 1",
    "4bit": "parameters x b, linear layers of the language model x 0.56",
    "frozen adapters": "parameters of every adapter not merged x 4",
    "trained adapter": "P x t, t bytes of a trained number: 4, in a full update b",
    "gradients": "P x t",
    "optimiser": "P x 2t, AdamW's moments",
    "copies": "P x 2t, the last good state and the next",
    "reference": "P x b, what the weights were before a full update",
    "kept": "E x A x 4 (NPO) or E x A x V x 4 (KL), at most 1 GiB: what the reference said of E "
    "examples that come again",
    "activations": "B x T x (l x (8w + 8 + 3ib + attention + adapters) + 4w + 4)",
    "checkpointed": "B x T x (l x wb + one layer in full + 4w + 4)",
    "layer": "8w + 8 + 3ib + attention + adapters",
    "sdpa": "(2q + 2k)b + 4h",
    "eager": "3qb + hT(4 + b)",
    "adapters": "4 x (5w + q + i) + 28r; in float32, inputs shared, 4 x (2w + q + i) + 28r; "
    "in a full update b x (4w + q + i)",
    "answers": "B x (A + 1) x V x (b + 12)",
    "one layer": "B x T x (6w + 3i)b",
    "cache": "B x (T + tokens generated) x l x 2kb",
    "asked": "B x O x V x (b + 12), O places where a question's options are read",
    "pictures": "pictures x patches x (6w + 2i)b, w and i of the tower",
    "reserve": f"{RESERVE:.0%} of all this, for the allocator's gaps",
}
