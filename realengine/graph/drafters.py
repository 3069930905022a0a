"""From what drafts, as weights or a rule, to the drafter that an engine runs."""

from __future__ import annotations

from typing import TypeAlias

from pdvsim.models import ModelShape
from realengine.graph.drafting import Drafter, ModelDrafter
from realengine.graph.eagle3 import Eagle3Drafter, Head
from realengine.graph.model import Weights
from realengine.graph.ngram import Ngram, NgramDrafter
from realengine.graph.ops import Ops
from realengine.graph.paged import PagedCache
from realengine.graph.sampling import Sampler
from realengine.graph.state import State

Draft: TypeAlias = Weights | Head | Ngram | None  # None: the engine only decodes


def cached_shapes(draft: Draft) -> list[ModelShape]:
    """Those of the decoders in `draft`, which need a cache."""
    if isinstance(draft, Head):
        return [draft.shape.layer]
    return [draft.shape] if isinstance(draft, Weights) else []


def drafter_of(
    draft: Draft,
    caches: list[PagedCache],
    context_tokens: int,
    ops: Ops,
    state: State,
    sampler: Sampler,
) -> Drafter:
    """The drafter over `caches`, which belong to `cached_shapes`."""
    if isinstance(draft, Head):
        return Eagle3Drafter(draft, caches[0], ops, state, sampler)
    if isinstance(draft, Weights):
        return ModelDrafter(draft, caches[0], ops, state, sampler)
    return Drafter() if draft is None else NgramDrafter(draft, state, context_tokens)
