"""Settings of training: every default of the method stands here, and nowhere else."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from symcere.errors import ConfigError
from symcere.models.symcere import Pairs, Positives
from symcere.training.device import Precision
from symcere.training.known import Mask
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Real, Space

POPULARITY_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.5, -0.2, -0.4)
"""The dials that every system is offered; 0 first, so that a tie leaves the dial alone."""

_STEPS = 64  # of an epoch at most, unless batches_per_propagation says otherwise

Weight = Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)]


class Settings(BaseModel):
    """Frozen settings; an unknown key or a value out of range is refused with a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        """Build settings from keywords; fields left out keep their defaults.

        Args:
            **values: Some of the fields.

        Raises:
            ConfigError: If a key is unknown or a value out of range; the message lists what is valid.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                valid = ", ".join(type(self).model_fields)
                raise ConfigError(f"Unknown setting {key!r}. Valid: {valid}.") from None
            raise ConfigError(f"Setting {key}: {first['msg']}; found {first['input']!r}.") from None


class Schedule(Settings):
    """How the loop steps, when it validates and when it stops."""

    batch_size: Annotated[int, Field(ge=2)] = 1_024
    """Interactions of a step; in-batch negatives come from the same batch."""
    batches_per_propagation: Annotated[int, Field(ge=0)] = 0
    """Batches whose gradients are gathered before one way back through the graph and one step; 0 for as few as leave
    64 steps an epoch."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 4e-3
    """Step size of Adam."""
    max_epochs: Annotated[int, Field(ge=1)] = 300
    """Epochs at most."""
    valid_every: Annotated[int, Field(ge=1)] = 3
    """Epochs between validations; small data over-fits within a few epochs."""
    patience: Annotated[int, Field(ge=1)] = 6
    """Validations without a better valid NDCG@10 before training stops."""
    valid_users: Annotated[int, Field(ge=1)] = 10_000
    """Users at most whose valid items decide, drawn once by the seed."""
    popularity_weights: Annotated[tuple[FiniteFloat, ...], Field(min_length=1)] = POPULARITY_WEIGHTS
    """Dials tried at each validation; the best epoch and the best dial are chosen together."""

    def batches_per_step(self, n_interactions: int) -> int:
        """How many batches share a propagation and a step, so that the cost of an epoch is linear in its length."""
        return self.batches_per_propagation or -(-self._n_batches(n_interactions) // _STEPS)

    def is_large(self, n_interactions: int) -> bool:
        """Whether batches have to share steps, unless batches_per_propagation says how many do."""
        return self._n_batches(n_interactions) > _STEPS

    def _n_batches(self, n_interactions: int) -> int:
        return -(-n_interactions // self.batch_size)


class GraphSettings(Schedule):
    """The graph tower."""

    dim: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Length of an embedding."""
    n_layers: Annotated[int, Field(ge=1, le=16)] = 2
    """Propagation hops."""
    include_ego: bool = False
    """Whether layer 0 is in the mean over layers."""
    w_l2: Weight = 1e-5
    """Weight of L2 on the layer-0 rows of a batch."""
    precision: Precision = "auto"
    """Of what large data spends its time on while it is learned from: float32; bfloat16; or auto, bfloat16 where that
    is faster. Rows that are propagated on a processor (auto: from 32,768 nodes on), and SymCERE's matrix products of
    softmaxes on the unit sphere (auto: from 65 batches an epoch on, if the device has instructions for it)."""


class SymcereSettings(GraphSettings):
    """SymCERE. The defaults are one setting for all data, near the best of a search (docs/log.md)."""

    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.35
    """Of every softmax, of BPR and of the score."""
    text_weight: Weight = 0.65
    """Weight of the unit text vector beside the unit graph vector in the final vector."""
    propagated_weight: Weight = 1.0
    """Weight of the text vector of the neighbourhood beside both: profiles averaged over the graph, projected."""
    neighbourhood_weight: Weight = 1.0
    """Weight of the third tower, text averaged over the graph, in the score; 0 for none. With it a vector is twice as
    long."""
    hidden: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Width of a hidden layer in the text projection; 0 for a linear projection."""
    mask: Mask = "history"
    """Which in-batch pairs the denominators leave out."""
    positives: Positives = "own"
    """What the numerators hold: the pair itself, or every known pair of the batch (SINCERE)."""
    check_text: bool = True
    """Whether all text counts up to 64 times less or 4 times more than its weights say, where that is clearly better
    on valid (by two standard errors of NDCG@10, or three of the log of the rank) once the towers are learned. Where
    less is better, or a 64th not clearly worse, all is learned once more without the cross-modal term; the better of
    both is taken if text has to count less there too."""
    pairs: Pairs = "user_item"
    """What the cross-modal term joins: a user with the item's other modality, or a node with its own."""
    unit: bool = True
    """Whether all vectors are put on the unit sphere; without, lengths count in every similarity and in the score."""
    leave_one_out: bool = False
    """Whether training takes a pair's review out of the pair's profiles; the features must know their reviews. What
    is averaged over the graph keeps it."""
    w_text_in_graph: Weight = 0.0
    """Weight of the projected profile in layer 0 of the graph tower; it is part of that tower, and `check_text` does
    not count it."""
    w_cross: Weight = 0.5
    """Weight of the cross-modal term."""
    w_intra_graph: Weight = 0.8
    """Weight of the intra-modal term of the graph tower."""
    w_intra_text: Weight = 1.2
    """Weight of the intra-modal term of the text tower."""
    w_bpr: Weight = 0.5
    """Weight of the ranking term."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss term of the model."""
        return {
            "cross": self.w_cross,
            "intra_graph": self.w_intra_graph,
            "intra_text": self.w_intra_text,
            "bpr": self.w_bpr,
            "l2": self.w_l2,
            "neighbourhood": 1.0,  # its parameters have no other term, and Adam knows no scale
        }


SPACE: Space = {
    **GRAPH,
    "temperature": TEMPERATURE,
    "text_weight": Real(0.2, 8.0, log=True),
    "w_cross": Real(0.05, 3.0, log=True),
    "w_intra_graph": Real(0.05, 3.0, log=True),
    "w_intra_text": Real(0.05, 3.0, log=True),
    "w_bpr": Real(0.05, 3.0, log=True),
    "mask": Choice(("history", "same_item", "none")),
    "propagated_weight": Choice((0.0, 0.5, 1.0, 3.0, 8.0)),
    "neighbourhood_weight": Choice((0.5, 1.0, 2.0)),
}
"""What a search may move of SymCERE."""

PUBLISHED = (
    SymcereSettings(),
    SymcereSettings(
        learning_rate=1e-3, batch_size=2_048, temperature=0.5, text_weight=1.0, propagated_weight=0.0,
        w_intra_graph=1.0, w_intra_text=1.0, w_bpr=0.1,
    ),
    SymcereSettings(mask="none"),
    SymcereSettings(mask="none", propagated_weight=3.0, text_weight=1.0, w_bpr=2.0),
    SymcereSettings(
        mask="none", temperature=0.5, text_weight=8.0, propagated_weight=0.0, neighbourhood_weight=0.5, w_cross=0.05,
        w_intra_graph=0.05, w_intra_text=1.0, w_bpr=0.05,
    ),
)  # fmt: skip
"""No settings of the paper are known to us: the defaults, what did well in earlier trials (docs/log.md), and last the
corner in which little but the texts is learned from: where there are few interactions, nothing else may be better."""
