"""Sequence classifiers of transformers: from a checkpoint, or a small BERT (Devlin et al. 2019) that starts from nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import BertConfig, BertForSequenceClassification

from objectives.text import hub
from objectives.text.config import TextModelConfig
from objectives.text.tokens import PADDING, TokenData
from objectives.training.readback import used_dropout
from spaces.errors import ConfigError


class TextModel(nn.Module):
    """Tokens (N, L), `PADDING` where a text has ended, to logits (N, C)."""

    def __init__(self, model: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.model, self.pad_id = model, pad_id

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """The logits (N, C)."""
        held_NL = tokens_NL != PADDING
        logits_NC: Tensor = self.model(
            input_ids=tokens_NL.masked_fill(~held_NL, self.pad_id), attention_mask=held_NL.long()
        ).logits
        return logits_NC


def build_model(config: TextModelConfig, data: TokenData) -> TextModel:
    """The model, on the CPU; what no checkpoint holds is initialised from torch's global generator.

    Raises:
        ConfigError: when the checkpoint cannot be had, or does not go with the tokeniser or the length of the texts.
    """
    classes = len(data.class_names)
    model = (
        _small(config, data)
        if config.checkpoint is None
        else _named(config.checkpoint, config, classes, data)
    )
    if config.dropout is not None:
        _set_dropout(model, config, config.dropout)
    return TextModel(model, data.pad_id)


def used_model(config: TextModelConfig, model: TextModel, data: TokenData) -> dict[str, Any]:
    """Dotted path → value, read back from the live model and the data that it is given."""
    own: Any = model.model.config
    found: dict[str, Any] = {"model.checkpoint": config.checkpoint, **data.made_by}
    if config.checkpoint is None:
        found |= {
            "model.hidden": own.hidden_size,
            "model.layers": own.num_hidden_layers,
            "model.heads": own.num_attention_heads,
        }
    rates = {getattr(own, field) for field in hub.dropout_fields(own)}
    return found | (
        used_dropout(config.dropout, model)
        if config.dropout is None or rates <= {config.dropout}
        else {}
    )


def _small(config: TextModelConfig, data: TokenData) -> nn.Module:
    shape = BertConfig(
        vocab_size=data.vocabulary,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden,
        max_position_embeddings=config.max_length,
        pad_token_id=data.pad_id,
        num_labels=len(data.class_names),
    )
    for field in hub.dropout_fields(shape) if config.dropout is not None else ():
        setattr(shape, field, config.dropout)
    model: nn.Module = BertForSequenceClassification(shape)
    return model


def _named(checkpoint: str, config: TextModelConfig, classes: int, data: TokenData) -> nn.Module:
    model: Any = hub.classifier(checkpoint, "base.model.checkpoint", classes, config.dropout)
    held = model.get_input_embeddings().num_embeddings
    if data.vocabulary > held:
        raise ConfigError(
            "the tokeniser does not go with the checkpoint",
            where="base.model.tokenizer",
            found=f"{data.vocabulary} tokens",
            allowed=f"{held} or less, as the checkpoint has embeddings",
            next_step="leave tokenizer out, so that the checkpoint's own is taken",
        )
    longest = getattr(model.config, "max_position_embeddings", None)
    if isinstance(longest, int) and 0 < longest < config.max_length:
        raise ConfigError(
            "the checkpoint takes no texts of that length",
            where="base.model.max_length",
            found=str(config.max_length),
            allowed=f"{longest} or less",
        )
    model.config.pad_token_id = data.pad_id
    network: nn.Module = model
    return network


def _set_dropout(model: nn.Module, config: TextModelConfig, rate: float) -> None:
    """One rate for every dropout layer."""
    layers = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    if not layers and not hub.dropout_fields(getattr(model, "config", config)):
        raise ConfigError(
            "the model has no dropout layer",
            where="base.model.dropout",
            found=f"{config.checkpoint}, dropout {rate}",
            allowed="null for this model",
            next_step="leave it out, or choose another checkpoint",
        )
    for layer in layers:
        layer.p = rate
