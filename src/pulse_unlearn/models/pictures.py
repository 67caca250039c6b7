"""Pictures as the processor shows them: decoded and processed once, not once per question."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pulse_unlearn.data.images import decode
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.fast.packing import Image
from pulse_unlearn.records import Picture

SEQUENCE_INPUTS = frozenset({"input_ids", "attention_mask"})
"""What a processor returns about the text; all else is about the picture."""
KEPT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Shown:
    """One processed picture."""

    image: Image
    """The tokens its placeholder stands for."""
    inputs: dict[str, Tensor]
    """`pixel_values` and whatever else the processor returns for it, first dimension 1."""

    @property
    def shapes(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """Shapes of the inputs by name."""
        return frozenset((name, tuple(tensor.shape)) for name, tensor in self.inputs.items())

    @property
    def size(self) -> int:
        """Bytes of the inputs."""
        return sum(tensor.nbytes for tensor in self.inputs.values())


class Pictures:
    """Processed pictures by digest; the oldest go when they take more than a gibibyte."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._kept: OrderedDict[str, Shown] = OrderedDict()
        self._bytes = 0

    def __call__(self, picture: Picture, *, prompt: str) -> Shown:
        """Return the picture processed; `prompt` is any text with its placeholder in it."""
        if picture.digest in self._kept:
            self._kept.move_to_end(picture.digest)
            return self._kept[picture.digest]
        shown = self._process(picture, prompt)
        self._kept[picture.digest] = shown
        self._bytes += shown.size
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].size
        return shown

    def _process(self, picture: Picture, prompt: str) -> Shown:
        made = dict(self._processor(text=[prompt], images=[decode(picture)], return_tensors="pt"))
        plain = self._processor.tokenizer(prompt)["input_ids"]
        whole = made["input_ids"][0].tolist()
        place = plain.index(self._processor.image_token_id)
        behind = len(plain) - place - 1
        run = whole[place : len(whole) - behind]
        if whole[:place] + whole[len(whole) - behind :] != plain[:place] + plain[place + 1 :]:
            raise ModelError(
                Problem(
                    "the picture changes the text around it, so questions cannot be packed",
                    type(self._processor).__name__,
                    fix="--set speed.packing=off",
                )
            )
        # Copied into torch's own aligned memory: the last bits of a matrix product depend on where
        # its input lies, and arrays of the processor lie anywhere.
        inputs = {key: value.clone() for key, value in made.items() if key not in SEQUENCE_INPUTS}
        return Shown(Image(picture.digest, tuple(run)), inputs)
