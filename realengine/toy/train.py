"""Train the toy pair on one CPU core in about ten minutes: `python -m realengine.toy.train`.

The verifier learns the text; the draft then learns the verifier's next-byte distribution, which
is what its proposals are judged by.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from realengine.toy import DRAFT, VERIFIER, corpus

WINDOW_TOKENS = 256
BATCH = 8


def model(
    layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int
) -> LlamaForCausalLM:
    """A byte-level Llama with random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=1024,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def train(
    learner: LlamaForCausalLM,
    text: torch.Tensor,
    seconds: float,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    peak_rate: float,
) -> float:
    """Adam with a cosine schedule over wall-clock time. Returns the last loss in nats a byte."""
    optimizer = torch.optim.AdamW(learner.parameters(), lr=peak_rate, betas=(0.9, 0.95))
    began, step, mean = time.monotonic(), 0, 0.0
    while (progress := (time.monotonic() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            warm_up = min(1.0, (step + 1) / 100)
            group["lr"] = (
                peak_rate * warm_up * (0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)
            )
        starts = torch.randint(len(text) - WINDOW_TOKENS, (BATCH,))
        window = torch.stack([text[s : s + WINDOW_TOKENS] for s in starts.tolist()])
        loss = loss_of(learner(window).logits[:, :-1], window)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        mean, step = loss.item() if not step else 0.98 * mean + 0.02 * loss.item(), step + 1
        if step % 100 == 0:
            print(f"step {step}, {progress:.0%}: loss {mean:.3f}", flush=True)
    return mean


def main(verifier_s: float = 420.0, draft_s: float = 150.0) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    text = torch.frombuffer(bytearray(corpus()), dtype=torch.uint8).long()

    verifier = model(layers=4, hidden=192, heads=6, kv_heads=2, intermediate=512)
    cross_entropy = torch.nn.functional.cross_entropy
    train(
        verifier,
        text,
        verifier_s,
        lambda logits, window: cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten()),
        peak_rate=3e-3,
    )

    @torch.no_grad()
    def target(window: torch.Tensor) -> torch.Tensor:
        probabilities: torch.Tensor = verifier(window).logits[:, :-1].softmax(-1)
        return probabilities

    draft = model(layers=1, hidden=128, heads=4, kv_heads=1, intermediate=256)
    train(
        draft,
        text,
        draft_s,
        lambda logits, window: cross_entropy(logits.flatten(0, 1), target(window).flatten(0, 1)),
        peak_rate=4e-3,
    )

    for learner, folder in ((verifier, VERIFIER), (draft, DRAFT)):
        learner.half().save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
