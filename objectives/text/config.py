"""The configuration of one text classifier. No torch: a plan checks it before any GPU second is spent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from objectives.config import TrainingConfig
from spaces.config import MetricConfig, OptimizerConfig
from spaces.frozen import Frozen


class DocstringsData(Frozen):
    """The embedded data set: docstrings of Python's own standard library, by the group of packages that they come from (no download)."""

    kind: Literal["docstrings"] = "docstrings"
    texts: int = Field(
        default=4000,
        ge=40,
        description="at most so many, over all three splits; fewer are drawn so that the groups keep their shares",
    )
    min_words: int = Field(default=4, ge=1, description="shorter docstrings are left out")
    seed: int = Field(default=0, ge=0, description="which modules go into which split")


class TableData(Frozen):
    """One's own texts, a file a split: CSV with a header, JSON Lines, Parquet, or a folder that `datasets` saved."""

    kind: Literal["csv", "jsonl", "parquet", "datasets"]
    train: str = Field(
        description="file (or folder, for datasets) of the training texts; relative to the working directory"
    )
    val: str | None = Field(
        default=None,
        description="the same of the validation texts; null: drawn from the training texts",
    )
    test: str | None = Field(default=None, description="null: no test score is recorded")
    text: str = Field(default="text", description="name of the column that holds the text")
    label: str = Field(default="label", description="name of the column that holds the class")
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="the classes in their order; null: those of the training texts, sorted",
    )
    val_share: float = Field(
        default=0.15, gt=0, lt=1, description="only where val is null: so much of every class"
    )
    seed: int = Field(default=0, ge=0, description="only where val is null: which texts are drawn")

    @field_validator("classes")
    @classmethod
    def _named_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise PydanticCustomError(
                "class_named_twice",
                "a class is named twice in {names}",
                {"names": str(list(names))},
            )
        return names


KINDS = ("docstrings", "csv", "jsonl", "parquet", "datasets")


def _kind(given: Any) -> str:
    """The embedded data where no kind is named."""
    return str(
        given.get("kind", "docstrings")
        if isinstance(given, dict)
        else getattr(given, "kind", "docstrings")
    )


TextData = Annotated[
    Annotated[DocstringsData, Tag("docstrings")]
    | Annotated[TableData, Tag("csv")]
    | Annotated[TableData, Tag("jsonl")]
    | Annotated[TableData, Tag("parquet")]
    | Annotated[TableData, Tag("datasets")],
    Discriminator(_kind),
]


class TextModelConfig(Frozen):
    """Any sequence classifier of transformers by its checkpoint, or a small BERT that starts from nothing."""

    checkpoint: str | None = Field(
        default=None,
        description="a name on the Hugging Face hub, or a local folder; null: a small BERT that needs neither",
    )
    tokenizer: str | None = Field(
        default=None,
        description="likewise; null: the checkpoint's own, or one that is trained on the training texts",
    )
    max_length: int = Field(
        default=64, ge=8, le=8192, description="tokens after which a text is cut off"
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
        description="only where the tokeniser is trained: tokens that it may have",
    )
    hidden: int = Field(default=64, ge=8, description="small BERT only: width; a multiple of heads")
    layers: int = Field(default=2, ge=1, description="small BERT only")
    heads: int = Field(default=2, ge=1, description="small BERT only")

    @model_validator(mode="after")
    def _divides(self) -> TextModelConfig:
        if self.hidden % self.heads:
            raise PydanticCustomError(
                "heads",
                "hidden must be a multiple of heads, but {hidden} is none of {heads}",
                {"hidden": self.hidden, "heads": self.heads},
            )
        return self


class TextOptimizer(OptimizerConfig):
    """As every optimiser; AdamW, with a base rate that suits the small BERT. For a checkpoint set 2e-5 or so."""

    kind: Literal["sgd", "adamw"] = "adamw"
    base_lr: float = Field(
        default=1e-3,
        gt=0,
        description="what a multiple of 1 means on these data; 1e-3 suits the small BERT, 2e-5 most checkpoints",
    )


class TextMetric(MetricConfig):
    """As every metric; macro-F1 where none is named."""

    name: str = Field(
        default="macro_f1",
        description="macro_f1, accuracy, or val_ce: the plain cross entropy of the validation texts",
    )


class TextConfig(TrainingConfig):
    """Everything that decides one training of a text classifier."""

    objective: str = "text_classification"
    metric: TextMetric = TextMetric()
    data: TextData = DocstringsData()
    model: TextModelConfig = TextModelConfig()
    optimizer: TextOptimizer = TextOptimizer()
    batch_size: int = Field(default=16, ge=1)
