"""Texts as tokens: a tokeniser by name, or one trained on the training texts, and splits that hand out padded batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from objectives.data.loading import Batch, Data, Key
from objectives.text import hub
from objectives.text.config import TextModelConfig
from objectives.text.texts import Labelled, Texts
from spaces.errors import ConfigError

IGNORE = -100
"""Label of what counts for nothing, as transformers has it."""

PADDING = -1
"""Stands in a batch where a text has ended; the model puts its own token there, and looks away."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
"""The first tokens of a trained tokeniser, in this order."""


@dataclass(frozen=True, kw_only=True)
class TokenData(Data):
    """Texts as tokens, and what a model must know of the tokeniser.

    Attributes:
        made_by: dotted path → value of what the tokens were made by.
    """

    vocabulary: int
    pad_id: int
    made_by: Mapping[str, Any]


class TokenSplit:
    """The tokens of a split, one text after the other."""

    def __init__(self, ids: Sequence[Sequence[int]], labels: Sequence[int]) -> None:
        lengths = np.fromiter((len(text) for text in ids), dtype=np.int64, count=len(ids))
        self.ends = np.concatenate([[0], np.cumsum(lengths)])
        self.ids = np.fromiter(
            (token for text in ids for token in text), dtype=np.int32, count=int(self.ends[-1])
        )
        self.labels = torch.tensor(labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: list[Key]) -> Batch:
        index = [key for key, _ in keys]
        longest = int(max(self.ends[at + 1] - self.ends[at] for at in index))
        tokens_NL = np.full((len(index), longest), PADDING, dtype=np.int64)
        for row, at in enumerate(index):
            own = self.ids[self.ends[at] : self.ends[at + 1]]
            tokens_NL[row, : len(own)] = own
        return torch.from_numpy(tokens_NL), self.labels[index]


def tokenised(texts: Texts, config: TextModelConfig) -> TokenData:
    """The data set as tokens.

    Raises:
        ConfigError: when the tokeniser cannot be had, or takes no text as long as `max_length`.
    """
    name = config.tokenizer or config.checkpoint
    encode, vocabulary, pad_id = (
        _trained(texts.train.texts, config) if name is None else _named(name, config)
    )

    made_by = {"model.max_length": config.max_length, "model.tokenizer": config.tokenizer}
    made_by |= {} if name else {"model.vocabulary": config.vocabulary}

    def split(labelled: Labelled) -> TokenSplit:
        return TokenSplit(encode(labelled.texts), labelled.labels)

    return TokenData(
        train=split(texts.train),
        val=split(texts.val),
        test=None if texts.test is None else split(texts.test),
        class_names=texts.class_names,
        ignore_index=IGNORE,
        vocabulary=vocabulary,
        pad_id=pad_id,
        made_by=made_by,
    )


def _trained(texts: Sequence[str], config: TextModelConfig) -> tuple[Any, int, int]:
    """Byte-pair encoding (Sennrich et al. 2016), trained on these texts, small letters only.

    It must come out the same in each process, for all workers and all attempts train on the same tokens. WordPiece, as
    BERT has it, does not: the library meets its `##` letters in the order of a hash table.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in SPECIAL[2:]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    tokenizer.enable_truncation(config.max_length)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch(list(texts))]

    return encode, tokenizer.get_vocab_size(), 0


def _named(name: str, config: TextModelConfig) -> tuple[Any, int, int]:
    tokenizer = hub.tokenizer(
        name, "base.model.tokenizer" if config.tokenizer else "base.model.checkpoint"
    )
    if config.max_length > tokenizer.model_max_length:
        raise ConfigError(
            "the tokeniser takes no texts of that length",
            where="base.model.max_length",
            found=str(config.max_length),
            allowed=f"{tokenizer.model_max_length} or less",
        )
    pad_id = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    )

    def encode(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            list(texts), truncation=True, max_length=config.max_length
        )["input_ids"]
        return ids

    return encode, len(tokenizer), int(pad_id or 0)
