"""Configuration of text classification. No torch: a plan checks it before any training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from objectives.config import TrainingConfig
from spaces.config import MetricConfig, OptimizerConfig
from spaces.frozen import Frozen


class DocstringsData(Frozen):
    """Embedded data set: docstrings of Python's standard library (no download)."""

    kind: Literal["docstrings"] = "docstrings"
    texts: int = Field(
        default=4000,
        ge=40,
        description="number of texts in all three splits, at most; groups keep their shares",
    )
    min_words: int = Field(default=4, ge=1, description="shorter docstrings are left out")
    seed: int = Field(default=0, ge=0, description="of the assignment of modules to splits")


class TableData(Frozen):
    """Texts, one file per split: CSV with header, JSON Lines, Parquet, folder of `datasets`."""

    kind: Literal["csv", "jsonl", "parquet", "datasets"]
    train: str = Field(
        description="file (or folder, for datasets) of the training texts; relative to the "
        "working directory"
    )
    val: str | None = Field(
        default=None,
        description="file of the validation texts; null: drawn from the training texts",
    )
    test: str | None = Field(default=None, description="null: no test score is recorded")
    text: str = Field(default="text", description="name of the column with the texts")
    label: str = Field(default="label", description="name of the column with the classes")
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="classes in their order; null: those of the training texts, sorted",
    )
    val_share: float = Field(
        default=0.15, gt=0, lt=1, description="if val is null: share of every class that is drawn"
    )
    seed: int = Field(default=0, ge=0, description="if val is null: of the drawing")

    @field_validator("classes")
    @classmethod
    def _check_unique(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise PydanticCustomError(
                "class_named_twice",
                "a class is named twice in {names}",
                {"names": str(list(names))},
            )
        return names


KINDS = ("docstrings", "csv", "jsonl", "parquet", "datasets")


def _kind_of(given: Any) -> str:
    """Return the kind of data; the embedded data if none is named."""
    if isinstance(given, dict):
        return str(given.get("kind", "docstrings"))
    return str(getattr(given, "kind", "docstrings"))


TextData = Annotated[
    Annotated[DocstringsData, Tag("docstrings")]
    | Annotated[TableData, Tag("csv")]
    | Annotated[TableData, Tag("jsonl")]
    | Annotated[TableData, Tag("parquet")]
    | Annotated[TableData, Tag("datasets")],
    Discriminator(_kind_of),
]


class TextModelConfig(Frozen):
    """Sequence classifier of transformers by its checkpoint, or a small BERT, not pretrained."""

    checkpoint: str | None = Field(
        default=None,
        description="name on the Hugging Face hub, or local folder; null: a small BERT that needs "
        "neither",
    )
    tokenizer: str | None = Field(
        default=None,
        description="likewise; null: the checkpoint's own, or one trained on the training texts",
    )
    max_length: int = Field(
        default=64, ge=8, le=8192, description="tokens after which a text is truncated"
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="rate of the model's dropout layers; null: as the model sets it",
    )
    vocabulary: int = Field(
        default=2000,
        ge=100,
        description="if the tokenizer is trained: its number of tokens",
    )
    hidden: int = Field(default=64, ge=8, description="small BERT only: width; a multiple of heads")
    layers: int = Field(default=2, ge=1, description="small BERT only")
    heads: int = Field(default=2, ge=1, description="small BERT only")

    @model_validator(mode="after")
    def _check_heads(self) -> TextModelConfig:
        if self.hidden % self.heads:
            raise PydanticCustomError(
                "heads",
                "hidden must be a multiple of heads, but {hidden} is not one of {heads}",
                {"hidden": self.hidden, "heads": self.heads},
            )
        return self


class TextOptimizer(OptimizerConfig):
    """Optimizer: AdamW by default, with a base rate for the small BERT (else about 2e-5)."""

    kind: Literal["sgd", "adamw"] = "adamw"
    base_lr: float = Field(
        default=1e-3,
        gt=0,
        description="learning rate of a multiple of 1; 1e-3 suits the small BERT, 2e-5 most "
        "checkpoints",
    )


class TextMetric(MetricConfig):
    """Metric with macro-F1 as default."""

    name: str = Field(
        default="macro_f1",
        description="macro_f1, accuracy, or val_ce: plain cross entropy of the validation texts",
    )


class TextConfig(TrainingConfig):
    """Everything that decides one training of a text classifier."""

    objective: str = "text_classification"
    metric: TextMetric = TextMetric()
    data: TextData = DocstringsData()
    model: TextModelConfig = TextModelConfig()
    optimizer: TextOptimizer = TextOptimizer()
    batch_size: int = Field(default=16, ge=1)
