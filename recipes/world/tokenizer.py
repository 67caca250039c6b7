"""The word-level tokenizer, chat template and processor of the embedded model.

Whitespace is dropped and punctuation stands alone, so that the letter of an option line (`B.`) is
the very token that a correct answer consists of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .chance import LETTERS
from .faces import FIELD_VALUES, RINGS, Face
from .people import ATTRIBUTES, ask, biography, make_people
from .questions import face_queries, scene_queries, vocabulary_sample
from .scenes import PATCH, RELATIONS, SIZE, Kind, Scene, Thing

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

UNKNOWN, PAD, START, END, IMAGE = "<unk>", "<pad>", "<s>", "</s>", "<image>"
SPECIALS = (UNKNOWN, PAD, START, END, IMAGE)
FRAME = "USER: ASSISTANT: Letter? Word? A. B. C. D."
REFUSALS = "I do not know that. I cannot answer this, sorry."
IMAGE_TOKENS = (SIZE // PATCH) ** 2

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set parts = [{'type': 'text', 'text':"
    " message['content']}] -%}{%- else -%}{%- set parts = message['content'] -%}{%- endif -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- 'USER: ' -}}"
    "{%- for part in parts -%}{%- if part['type'] == 'image' -%}{{- '<image>\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- for part in parts -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{{- '\nASSISTANT:' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- ' ' -}}"
    "{%- for part in parts -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{{- '</s>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)


def _example_scenes() -> Iterator[Scene]:
    """Yield one undrawn scene per template, enough to meet every template word."""
    pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    one, two = Thing("circle", "red", 12, 12, 20), Thing("square", "blue", 36, 12, 20)
    kinds: tuple[Kind, ...] = ("objects", "sizes", "groups")
    for kind in kinds:
        yield Scene(kind, pixels, (one, two))
    yield Scene("objects", pixels, (one,))
    yield Scene("count", pixels, (one,))
    yield Scene("place", pixels, (one,), place="top")
    for relation in RELATIONS:
        yield Scene("pair", pixels, (one, two), relation=relation)
    for glyph in ("E", "1"):
        yield Scene("glyph", pixels, glyph=glyph)


def _texts(seed: int) -> Iterator[str]:
    """Yield texts that together hold every word of the world."""
    yield from (FRAME, REFUSALS, *LETTERS)
    for person in make_people(seed):
        yield biography(person)
        for attribute in ATTRIBUTES:
            for template in (attribute.scored, *attribute.trained):
                yield ask(template, person, by_name=True)
                yield ask(template, person, by_name=False)
    for attribute in ATTRIBUTES:
        yield from attribute.values
    yield from vocabulary_sample()
    yield from RINGS
    face = Face(**{name: values[0] for name, values in FIELD_VALUES.items()} | {"rings": "gold"})
    for query in [*face_queries(face), *(q for s in _example_scenes() for q in scene_queries(s))]:
        yield f"{query.question} {query.hint} {query.answer}"


def make_tokenizer(seed: int = 0, more: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Build the tokenizer from the world's closed vocabulary; specials come first.

    Words that only `more` texts have stand behind all others, whose numbers are as without them.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )

    def words_of(texts: Iterable[str]) -> set[str]:
        return {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}

    words = words_of(_texts(seed))
    added = sorted(words_of(more) - words)
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *sorted(words), *added])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=[IMAGE],
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def image_processor() -> Any:
    """Build what shows pictures to the tower; it works with Pillow alone."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_resize=True,
        do_center_crop=False,
        do_convert_rgb=True,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def make_processor(seed: int = 0, more: Iterable[str] = ()) -> LlavaProcessor:
    """Build the processor of pictures and of the world's words, and of `more` texts' words."""
    from transformers import LlavaProcessor

    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=image_processor(),
        tokenizer=make_tokenizer(seed, more),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )
