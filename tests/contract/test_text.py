"""Contract of text classification: models and tokenizers by name, clear messages if there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from objectives.registry import OBJECTIVES
from objectives.text import hub
from objectives.text.config import TextConfig, TextModelConfig
from objectives.text.docstrings import load_docstrings
from objectives.text.model import TextModel, build_model
from objectives.text.tokens import PADDING, TokenSplit, tokenize_texts
from objectives.text.train import Run, fingerprint
from search.planning.plan import make_plan
from spaces.errors import ConfigError, StudyError
from spaces.study import StudySpec
from tests.contract.training import SMALL, Kit, machine, make_kit

__all__ = ["machine"]


@pytest.fixture(scope="module")
def text() -> Kit:
    """Text classification."""
    return make_kit("text_classification")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT for three classes, and its tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    ]
    tokenizer = Tokenizer(
        models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=20, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(1)
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        num_labels=3,
    )
    BertForSequenceClassification(shape).save_pretrained(folder)
    return folder


def run_of(kit: Kit, changes: dict[str, Any], data: Any = None) -> Run:
    return Run(kit.config(changes), data or kit.prepared, kit.counts, torch.device("cpu"))


class TestTokens:
    def test_padding(self, text: Kit) -> None:
        """What follows the end of a text changes nothing."""
        model = build_model(text.config().model, text.prepared).eval()
        short, long = torch.tensor([[2, 40, 3]]), torch.tensor([[2, 40, 3, PADDING, PADDING]])
        torch.testing.assert_close(model(short), model(long), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(
            model(short), model(torch.tensor([[2, 40, 3, 40, 41]])), atol=1e-6
        )

    def test_batches(self) -> None:
        """Texts of different lengths are in one batch, which is as long as the longest."""
        tokens_NL, target_N = TokenSplit([[1, 2], [3, 4, 5], [6]], [0, 1, 1]).__getitems__(
            [(2, 0), (1, 0)]
        )
        assert tokens_NL.tolist() == [[6, PADDING, PADDING], [3, 4, 5]]
        assert target_N.tolist() == [1, 1]

    def test_trained_again(self, text: Kit) -> None:
        """The tokenizer that is trained on the texts is the same each time: workers must agree."""
        for _ in range(5):
            again = text.trainer.prepare(text.config(), "cpu")
            assert again.train.ids.tolist() == text.prepared.train.ids.tolist()
            assert again.vocabulary == text.prepared.vocabulary <= 300
        assert max(again.train.ends[1:] - again.train.ends[:-1]) == 16


class TestCheckpoint:
    def test_local(self, text: Kit, checkpoint: Path) -> None:
        """A checkpoint in a folder is trained with its tokenizer and weights, and a new head; it resumes."""
        changes = {"model": {"checkpoint": str(checkpoint), "max_length": 16}, "epochs": 1}
        config = TextConfig.model_validate(
            {key: value for key, value in SMALL["text_classification"].items() if key != "model"}
            | changes
        )
        data = text.trainer.prepare(config, "cpu")
        run = Run(config, data, text.counts, torch.device("cpu"))
        model = BertForSequenceClassification.from_pretrained(checkpoint)
        assert torch.equal(
            run.model.model.bert.embeddings.word_embeddings.weight,
            model.bert.embeddings.word_embeddings.weight,
        )  # type: ignore[union-attr]
        record = run.next_epoch()
        assert len(record.class_metric) == 4
        assert record.used["model.checkpoint"] == str(checkpoint)
        assert "model.hidden" not in record.used

    def test_tokenizer_alone(self, text: Kit, checkpoint: Path) -> None:
        """A tokenizer by name goes with the small BERT, too."""
        given = TextModelConfig(tokenizer=str(checkpoint), max_length=16, hidden=16)
        data = tokenize_texts(load_docstrings(text.config().data), given)
        assert data.vocabulary == 57
        assert build_model(given, data).model.config.vocab_size == 57  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("model", "where", "what"),
        [
            ({"checkpoint": "./none"}, "base.model.checkpoint", "there is no folder ./none"),
            ({"tokenizer": "/none"}, "base.model.tokenizer", "there is no folder /none"),
            (
                {"checkpoint": "unknown/nothing"},
                "base.model.checkpoint",
                "is neither a folder here nor available on the Hugging Face hub",
            ),
            (
                {"checkpoint": "FOLDER", "max_length": 21},
                "base.model.max_length",
                "does not accept texts of that length",
            ),
            (
                {"checkpoint": "EMPTY"},
                "base.model.checkpoint",
                "contains no such model or tokenizer",
            ),
        ],
    )
    def test_refused(
        self,
        text: Kit,
        checkpoint: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        model: dict[str, Any],
        where: str,
        what: str,
    ) -> None:
        """No hub and no local model: one clear message, before any trial."""
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        folders = {"FOLDER": str(checkpoint), "EMPTY": str(tmp_path)}
        given = {key: folders.get(value, value) for key, value in model.items()}
        with pytest.raises(ConfigError, match=what) as caught:
            text.trainer.prepare(TextConfig(data={"texts": 120}, model=given), "cpu")  # type: ignore[arg-type]
        assert caught.value.where == where
        assert len(str(caught.value).splitlines()) <= 5


class TestOptions:
    @pytest.mark.parametrize(
        "path",
        [
            "model.dropout",
            "model.hidden",
            "model.layers",
            "model.heads",
            "model.max_length",
            "optimizer.weight_decay",
            "loss.label_smoothing",
            "early_stopping_patience",
        ],
    )
    def test_used(self, text: Kit, path: str) -> None:
        """What is set is what the training used."""
        value = {
            "model.dropout": 0.25,
            "model.hidden": 8,
            "model.heads": 4,
            "optimizer.weight_decay": 0.3,
            "loss.label_smoothing": 0.1,
            "model.max_length": 12,
        }.get(path, 3)
        changes = {path: value}
        assert (
            run_of(text, changes, text.trainer.prepare(text.config(changes), "cpu")).used[path]
            == value
        )

    def test_of_other_tokens(self, text: Kit) -> None:
        """`used` has what the tokens depend on, and not what the configuration requests."""
        assert run_of(text, {"model.max_length": 12}).used["model.max_length"] == 16
        keys = {
            OBJECTIVES["text_classification"].data_key(text.config({"model.max_length": length}))
            for length in (12, 16)
        }
        assert len(keys) == 2

    def test_dropout(self, text: Kit) -> None:
        """The rate is that of all dropout layers."""
        model = run_of(text, {"model.dropout": 0.4}).model
        assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.4}

    def test_dropout_without_layers(self, tmp_path: Path) -> None:
        """It reaches models that keep their rates as numbers and have hardly a layer for them."""
        size = {
            "d_model": 8,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 8,
            "decoder_ffn_dim": 8,
        }
        BartForSequenceClassification(
            BartConfig(vocab_size=60, max_position_embeddings=32, **size)
        ).save_pretrained(tmp_path)
        model = hub.load_classifier(str(tmp_path), "base.model.checkpoint", 3, dropout=0.4)
        rates = {
            name: module.dropout
            for name, module in model.named_modules()
            if isinstance(getattr(module, "dropout", None), float)
        }
        assert len(rates) > 4
        assert set(rates.values()) == {0.4}

    def test_linear(self, text: Kit) -> None:
        """The linear schedule warms up and then falls in a straight line."""
        changes = {
            "schedule": {"lr": "linear", "lr_warmup_epochs": 2},
            "epochs": 5,
            "optimizer.base_lr": 1.0,
        }
        run = run_of(text, changes)
        assert [run.values_of(epoch).lr for epoch in range(1, 6)] == pytest.approx(
            [0.5, 1, 0.75, 0.5, 0.25]
        )

    def test_class_metric(self, text: Kit) -> None:
        """The record has the F1 of every class, whatever the metric."""
        (record,) = text.train({"epochs": 1, "metric.name": "accuracy"})
        known = [value for value in record.class_metric if value is not None]
        assert record.metrics["macro_f1"] == pytest.approx(sum(known) / len(known))
        assert record.metric == record.metrics["accuracy"]

    def test_alpha_length(self, text: Kit) -> None:
        """An alpha of the wrong length is refused before any trial."""
        with pytest.raises(ConfigError, match="alpha has 3 values, but there are 4 classes"):
            text.trainer.prepare(
                text.config({"loss.kind": "focal", "loss.alpha": [0.1, 0.2, 0.3]}), "cpu"
            )

    def test_heads(self) -> None:
        """A width that is not a multiple of the heads is refused when the study is read."""
        spec = {
            "name": "t",
            "objective": "text_classification",
            "base": {"model": {"hidden": 10, "heads": 4}},
            "space": {"loss.gamma": {"kind": "float", "low": 0, "high": 1}},
        }
        with pytest.raises(
            StudyError, match="hidden must be a multiple of heads, but 10 is not one of 4"
        ):
            make_plan(StudySpec.model_validate(spec))

    def test_default_metric(self) -> None:
        """A study that names no metric is judged by macro-F1, or by another with its own rule."""
        spec = {
            "name": "t",
            "objective": "text_classification",
            "base": {"loss": {"kind": "focal"}},
            "space": {"loss.gamma": {"kind": "float", "low": 0, "high": 1}},
        }
        assert make_plan(StudySpec.model_validate(spec)).spec.metric.name == "macro_f1"
        plan = make_plan(StudySpec.model_validate(spec | {"metric": {"score": "last"}}))
        assert (plan.spec.metric.name, plan.spec.metric.score) == ("macro_f1", "last")
        assert (
            make_plan(StudySpec.model_validate(plan.spec.model_dump(mode="json"))).spec == plan.spec
        )

    def test_fingerprint(self, text: Kit) -> None:
        """The model is no part of what class counts belong to."""
        assert fingerprint(text.config()) == fingerprint(
            text.config({"model.hidden": 8, "model.max_length": 9})
        )


class TestSymptom:
    def test_overfits(self, text: Kit) -> None:
        """The small BERT overfits so few texts: the training loss falls while the validation loss rises."""
        records = text.train(
            {
                "epochs": 14,
                "model.hidden": 32,
                "model.max_length": 32,
                "loss.dice_weight": 0.0,
                "weights.method": "uniform",
                "optimizer.base_lr": 0.002,
                "model.dropout": 0.0,
                "batch_size": 4,
            }
        )
        losses = [record.val_loss for record in records]
        assert records[-1].train_loss < 0.5 * records[0].train_loss
        assert losses[-1] > 1.1 * min(losses)


def test_kept_apart(text: Kit) -> None:
    """A run's model is a `TextModel` on the split that it was given."""
    run = run_of(text, {"epochs": 1}, replace(text.prepared, test=None))
    assert isinstance(run.model, TextModel)
    assert run.next_epoch().test is None
