"""Text classifiers of transformers, from a checkpoint or as a small BERT (Devlin et al. 2019)."""

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
    """Classifier of tokens (N, L), which are `PADDING` after the end of a text."""

    def __init__(self, model: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Compute the logits (N, C)."""
        valid_NL = tokens_NL != PADDING
        logits_NC: Tensor = self.model(
            input_ids=tokens_NL.masked_fill(~valid_NL, self.pad_id), attention_mask=valid_NL.long()
        ).logits
        return logits_NC


def build_model(config: TextModelConfig, data: TokenData) -> TextModel:
    """Build the model on the CPU; new weights are initialized by torch's global generator.

    Raises:
        ConfigError: when the checkpoint cannot be loaded, or does not match the tokenizer or the
            length of the texts.
    """
    if config.checkpoint is None:
        model = _build_small_bert(config, data)
    else:
        model = _load_checkpoint(config.checkpoint, config, data)
    if config.dropout is not None:
        _set_dropout(model, config, config.dropout)
    return TextModel(model, data.pad_id)


def used_model(config: TextModelConfig, model: TextModel, data: TokenData) -> dict[str, Any]:
    """Read back dotted path → value from the live model and its data."""
    own: Any = model.model.config
    found: dict[str, Any] = {"model.checkpoint": config.checkpoint, **data.made_by}
    if config.checkpoint is None:
        found |= {
            "model.hidden": own.hidden_size,
            "model.layers": own.num_hidden_layers,
            "model.heads": own.num_attention_heads,
        }
    rates = {getattr(own, field) for field in hub.dropout_fields(own)}
    if config.dropout is None or rates <= {config.dropout}:
        found |= used_dropout(config.dropout, model)
    return found


def _build_small_bert(config: TextModelConfig, data: TokenData) -> nn.Module:
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
    if config.dropout is not None:
        for field in hub.dropout_fields(shape):
            setattr(shape, field, config.dropout)
    model: nn.Module = BertForSequenceClassification(shape)
    return model


def _load_checkpoint(checkpoint: str, config: TextModelConfig, data: TokenData) -> nn.Module:
    model: Any = hub.load_classifier(
        checkpoint, "base.model.checkpoint", len(data.class_names), config.dropout
    )
    embeddings = model.get_input_embeddings().num_embeddings
    if data.vocabulary > embeddings:
        raise ConfigError(
            "the tokenizer does not match the checkpoint",
            where="base.model.tokenizer",
            found=f"{data.vocabulary} tokens",
            allowed=f"{embeddings} or less, the checkpoint's number of embeddings",
            next_step="leave tokenizer out to use the checkpoint's own",
        )
    longest = getattr(model.config, "max_position_embeddings", None)
    if isinstance(longest, int) and 0 < longest < config.max_length:
        raise ConfigError(
            "the checkpoint does not accept texts of that length",
            where="base.model.max_length",
            found=str(config.max_length),
            allowed=f"{longest} or less",
        )
    model.config.pad_token_id = data.pad_id
    network: nn.Module = model
    return network


def _set_dropout(model: nn.Module, config: TextModelConfig, rate: float) -> None:
    """Set the rate of every dropout layer."""
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
