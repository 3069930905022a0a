"""Where one configuration overtakes another: ratios, crossings and valleys, with intervals.

`curve` holds the statistics, `search` decides which runs to make, `space` says what can be
compared over what. The first two know nothing of simulations: they ask a sampler for paired runs.
"""

from pdvsim.crossover.curve import Pairs, Root
from pdvsim.crossover.search import Budget, Comparison, Point, Sampler, Valley, compare

__all__ = ["Budget", "Comparison", "Pairs", "Point", "Root", "Sampler", "Valley", "compare"]
