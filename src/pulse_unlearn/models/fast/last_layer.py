"""The last layer's MLP where a pass is asked, and nowhere else.

Of the last layer's output only what the head is applied to is read, a few positions a question.
The others are in it for attention, which comes before the MLP and takes nothing from it. So the
MLP, two thirds of a layer, runs at those positions alone: a ninth less of a pass through 6 layers,
a fiftieth through 32. Keys and values stay complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pulse_unlearn.models.fast.patched_forward import patched_forward


@contextmanager
def last_mlp_at(language_model: nn.Module, asked: Tensor) -> Iterator[None]:
    """Run the last layer's MLP at these places only; elsewhere it adds zeros.

    `asked` [2, U] are rows and places in them, no two alike: what came again would get its gradient
    as often. A model whose last layer has nothing called `mlp`, or one that says more than a tensor
    (as some mixtures of experts do), or is checkpointed and so run a second time later, is left as
    it is.
    """
    layers = getattr(language_model, "layers", None) or [None]
    mlp = getattr(layers[-1], "mlp", None)
    if mlp is None or getattr(layers[-1], "gradient_checkpointing", False):
        yield
        return
    whole = mlp.forward

    def there(hidden: Tensor) -> Any:
        at = tuple(asked.to(hidden.device))
        found = whole(hidden[at].unsqueeze(0))
        if not isinstance(found, Tensor):
            return whole(hidden)
        return found.new_zeros(hidden.shape).index_put(at, found[0])

    with patched_forward(mlp, there):
        yield
