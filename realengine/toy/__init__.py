"""The toy models: a byte-level draft and verifier small enough to ship, trained by `train.py`, and
an EAGLE-3 head for the verifier, trained by `train_head.py`.

Text: the Python language reference as every Python carries it (`pydoc_data.topics`, Python
Software Foundation Licence Version 2, which allows redistribution of derived works).
"""

from pathlib import Path

FOLDER = Path(__file__).parent
DRAFT = FOLDER / "draft"
VERIFIER = FOLDER / "verifier"
HEAD = FOLDER / "head"
CHECKPOINTS = {"toy-draft": DRAFT, "toy-verifier": VERIFIER}  # by the names of their shapes


def corpus() -> bytes:
    """The training text: the language reference's topics, in alphabetical order."""
    from pydoc_data import topics

    return "\n".join(topics.topics[name] for name in sorted(topics.topics)).encode()


def prompts(count: int, tokens: int, seed: int = 0) -> list[list[int]]:
    """`count` passages of `tokens` bytes out of `corpus`, drawn with `seed`."""
    import numpy

    text = corpus()
    starts = numpy.random.default_rng(seed).integers(0, len(text) - tokens, count)
    return [list(text[start : start + tokens]) for start in starts]
