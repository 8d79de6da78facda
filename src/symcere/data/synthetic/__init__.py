"""Worlds with a known answer: reviews made from planted tastes, facts and sentiment.

Every item has a few facts and every user likes a few facts. Who buys what follows from the facts they share (and
from popularity); how a review sounds follows from its rating alone. So fact words carry all there is to know
about taste, and sentiment words carry nothing.
"""

from symcere.data.synthetic.anchoring import Truth, World, anchoring_world, write_amazon
from symcere.data.synthetic.streamed import StreamedWorld, write_world
from symcere.data.synthetic.vocabulary import FACTS, FILLERS, SENTIMENTS

__all__ = [
    "FACTS",
    "FILLERS",
    "SENTIMENTS",
    "StreamedWorld",
    "Truth",
    "World",
    "anchoring_world",
    "write_amazon",
    "write_world",
]
