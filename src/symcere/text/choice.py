"""Which encoders are taken when nobody says so."""

from symcere.text.distilled import distilled_encoder
from symcere.text.encoders import Encoder
from symcere.text.tfidf import lift_encoder

LARGE = 25_000
"""Train reviews from which on the distilled encoder is added: its teacher costs minutes, whatever the size."""


def default_encoders(n_reviews: int) -> tuple[Encoder, ...]:
    """Words by lift, and above 25,000 train reviews also the distilled encoder: the best on valid at their price.

    Args:
        n_reviews: Number of train reviews.

    Returns:
        The encoders; their profiles stand side by side.

    Example:
        >>> [encoder.name for encoder in default_encoders(1_000_000)]
        ['lift', 'distilled']
    """
    return (lift_encoder(), distilled_encoder()) if n_reviews >= LARGE else (lift_encoder(),)
