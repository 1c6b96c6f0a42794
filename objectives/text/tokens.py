"""Tokenize texts, by a tokenizer's name or by one trained on the training texts; padded batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from objectives.data.loading import Batch, Data, Key
from objectives.text import hub
from objectives.text.config import TextModelConfig
from objectives.text.texts import LabeledTexts, Texts
from spaces.errors import ConfigError

IGNORE = -100
"""Label of elements that are left out, as in transformers."""

PADDING = -1
"""Fills a batch after the end of a text; the model replaces it by its own token and masks it."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
"""First tokens of a trained tokenizer, in this order."""


@dataclass(frozen=True, kw_only=True)
class TokenData(Data):
    """Texts as tokens, and what a model needs from the tokenizer.

    Attributes:
        vocabulary: number of tokens.
        pad_id: token that fills a batch.
        made_by: dotted path → value that the tokens depend on.
    """

    vocabulary: int
    pad_id: int
    made_by: Mapping[str, Any]


class TokenSplit:
    """Tokens of a split, one text after another."""

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


@dataclass(frozen=True)
class _Encoder:
    """A tokenizer, ready to use.

    Attributes:
        encode: texts → token ids of each.
        vocabulary: number of tokens.
        pad_id: token that fills a batch.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    vocabulary: int
    pad_id: int


def tokenize_texts(texts: Texts, config: TextModelConfig) -> TokenData:
    """Tokenize the data set.

    Raises:
        ConfigError: when the tokenizer cannot be loaded, or does not accept texts as long as
            `max_length`.
    """
    name = config.tokenizer or config.checkpoint
    made_by = {"model.max_length": config.max_length, "model.tokenizer": config.tokenizer}
    if name is None:
        encoder = _train_encoder(texts.train.texts, config)
    else:
        encoder = _load_encoder(name, config)
    if not name:
        made_by["model.vocabulary"] = config.vocabulary

    def tokenize(split: LabeledTexts) -> TokenSplit:
        return TokenSplit(encoder.encode(split.texts), split.labels)

    return TokenData(
        train=tokenize(texts.train),
        val=tokenize(texts.val),
        test=None if texts.test is None else tokenize(texts.test),
        class_names=texts.class_names,
        ignore_index=IGNORE,
        vocabulary=encoder.vocabulary,
        pad_id=encoder.pad_id,
        made_by=made_by,
    )


def _train_encoder(texts: Sequence[str], config: TextModelConfig) -> _Encoder:
    """Train a lowercase byte-pair encoding (Sennrich et al. 2016) on these texts.

    It must be the same in every process, as all workers and attempts train on the same tokens.
    WordPiece, which BERT uses, is not: the library reads its `##` letters in the order of a hash
    table.
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

    return _Encoder(encode, tokenizer.get_vocab_size(), 0)


def _load_encoder(name: str, config: TextModelConfig) -> _Encoder:
    place = "base.model.tokenizer" if config.tokenizer else "base.model.checkpoint"
    tokenizer = hub.load_tokenizer(name, place)
    if config.max_length > tokenizer.model_max_length:
        raise ConfigError(
            "the tokenizer does not accept texts of that length",
            where="base.model.max_length",
            found=str(config.max_length),
            allowed=f"{tokenizer.model_max_length} or less",
        )
    pad_id = tokenizer.pad_token_id
    if pad_id is None:
        pad_id = tokenizer.eos_token_id

    def encode(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            list(texts), truncation=True, max_length=config.max_length
        )["input_ids"]
        return ids

    return _Encoder(encode, len(tokenizer), int(pad_id or 0))
