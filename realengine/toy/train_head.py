"""Train an EAGLE-3 head for the toy verifier on one CPU core in about five minutes:
`python -m realengine.toy.train_head`.

The head learns from what the verifier itself writes, greedily, behind passages of its text: that
is what its drafts are judged by. As in EAGLE-3 (Li et al., arXiv 2503.01840) it is trained along
its own chain: step i + 1 goes on from the output of step i, not from the verifier's states.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from realengine.toy import HEAD, VERIFIER, prompts

DEPTHS = (1, 3, 4)  # of the verifier's four layers
VOCABULARY = 96  # the most frequent bytes
PASSAGES, PROMPT_TOKENS, WINDOW_TOKENS = 384, 64, 192
BATCH, STEPS = 8, 4
HIDDEN, HEADS, KV_HEADS, HEAD_SIZE, INTERMEDIATE = 192, 6, 2, 32, 512
THETA, EPSILON = 10000.0, 1e-6


class Norm(nn.Module):
    """RMS norm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * self.weight
        return normed


class Layer(nn.Module):
    """The head's one layer; names are those of the public layout."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.hidden_norm = Norm(), Norm()
        self.post_attention_layernorm = Norm()
        query, kv = HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": _matrix(2 * HIDDEN, query),
                "k_proj": _matrix(2 * HIDDEN, kv),
                "v_proj": _matrix(2 * HIDDEN, kv),
                "o_proj": _matrix(query, HIDDEN),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": _matrix(HIDDEN, INTERMEDIATE),
                "up_proj": _matrix(HIDDEN, INTERMEDIATE),
                "down_proj": _matrix(INTERMEDIATE, HIDDEN),
            }
        )

    def forward(self, embedded: Tensor, states: Tensor, step: int, cache: list[Any]) -> Tensor:
        """Step `step` of the chains that begin at each position, `[batch, positions, hidden]`.

        Args:
            cache: keys and values of the steps before; gets this one's.
        """
        x = torch.cat([self.input_layernorm(embedded), self.hidden_norm(states)], -1)
        query, key, value = (
            self.self_attn[f"{name}_proj"](x).unflatten(-1, (-1, HEAD_SIZE)).transpose(1, 2)
            for name in "qkv"
        )
        groups = HEADS // KV_HEADS
        query = _rotated(query, step)
        key = _rotated(key, step).repeat_interleave(groups, 1)
        cache.append((key, value.repeat_interleave(groups, 1)))
        attended = _attend(query, cache).transpose(1, 2).flatten(2)
        states = states + self.self_attn["o_proj"](attended)
        y = self.post_attention_layernorm(states)
        gated = F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y)
        output: Tensor = states + self.mlp["down_proj"](gated)
        return output


class Head(nn.Module):
    """Everything that a checkpoint holds beside the map of its vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = _matrix(len(DEPTHS) * HIDDEN, HIDDEN)
        self.midlayer, self.norm = Layer(), Norm()
        self.lm_head = _matrix(HIDDEN, VOCABULARY)

    def forward(self, states: Tensor, embedded: Sequence[Tensor]) -> list[Tensor]:
        """Logits of each step, given the embeddings of the tokens that it sees."""
        states, cache = self.fc(states), list[Any]()
        found = []
        for step, tokens in enumerate(embedded):
            states = self.midlayer(tokens, states, step, cache)
            found.append(self.lm_head(self.norm(states)))
        return found


def _matrix(columns: int, rows: int) -> nn.Linear:
    return nn.Linear(columns, rows, bias=False)


def _rotated(x: Tensor, offset: int) -> Tensor:
    """Rotary embedding of `x [batch, heads, positions, size]`; the first stands at `offset`."""
    half = x.shape[-1] // 2
    positions = offset + torch.arange(x.shape[2])[:, None]
    angles = positions * THETA ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def _attend(query: Tensor, cache: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """A chain that begins at position b sees step 0 of all positions up to b, and its own
    further steps."""
    (key, value), scale = cache[0], HEAD_SIZE**-0.5
    before = torch.ones(key.shape[2], key.shape[2], dtype=torch.bool).tril()
    scores = [(query @ key.transpose(2, 3) * scale).masked_fill(~before, -math.inf)]
    scores += [(query * own).sum(-1, keepdim=True) * scale for own, _ in cache[1:]]
    weights = torch.cat(scores, -1).softmax(-1)
    seen = key.shape[2]
    attended: Tensor = weights[..., :seen] @ value
    for i, (_, own) in enumerate(cache[1:]):
        attended = attended + weights[..., seen + i, None] * own
    return attended


@torch.no_grad()
def written(verifier: LlamaForCausalLM) -> Tensor:
    """Passages of the text, each gone on with by the verifier: `[PASSAGES, WINDOW_TOKENS]`."""
    begun = torch.tensor(prompts(PASSAGES, PROMPT_TOKENS, seed=1))
    whole: Tensor = verifier.generate(
        begun, do_sample=False, min_length=WINDOW_TOKENS, max_length=WINDOW_TOKENS
    )
    return whole


@torch.no_grad()
def seen(verifier: LlamaForCausalLM, window: Tensor) -> tuple[Tensor, Tensor]:
    """The verifier's states at DEPTHS side by side, and its next-token probabilities."""
    states: dict[int, Tensor] = {}

    def keep(depth: int) -> Any:
        return lambda module, given, output: states.__setitem__(
            depth, output[0] if isinstance(output, tuple) else output
        )

    layers = verifier.model.layers
    hooks = [layers[depth - 1].register_forward_hook(keep(depth)) for depth in DEPTHS]
    probabilities = verifier(window).logits.softmax(-1)
    for hook in hooks:
        hook.remove()
    return torch.cat([states[depth] for depth in DEPTHS], -1), probabilities


def train(verifier: LlamaForCausalLM, text: Tensor, tokens: Tensor, seconds: float) -> Head:
    """Adam with a cosine schedule over wall-clock time."""
    head = Head()
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, betas=(0.9, 0.95))
    began, number = time.monotonic(), 0
    count = WINDOW_TOKENS - STEPS - 1  # positions whose chains stay within the window
    while (progress := (time.monotonic() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            warm_up = min(1.0, (number + 1) / 50)
            group["lr"] = 3e-3 * warm_up * (0.03 + 0.97 * (1 + math.cos(math.pi * progress)) / 2)
        window = text[torch.randint(len(text), (BATCH,))]
        states, probabilities = seen(verifier, window)
        embedded = verifier.model.embed_tokens(window).detach()
        logits = head(
            states[:, :count], [embedded[:, step + 1 :][:, :count] for step in range(STEPS)]
        )
        losses = []
        for step, found in enumerate(logits):
            target = probabilities[:, step + 1 :][:, :count, tokens]
            losses.append(-(target * found.log_softmax(-1)).sum(-1).mean() * 0.9**step)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        number += 1
        if number % 100 == 0:
            right = [
                (tokens[found.argmax(-1)] == window[:, step + 2 :][:, :count])[:, PROMPT_TOKENS:]
                for step, found in enumerate(logits)
            ]
            shares = ", ".join(f"{float(one.float().mean()):.2f}" for one in right)
            print(f"step {number}, {progress:.0%}: right by draft position {shares}", flush=True)
    return head


def save(head: Head, tokens: Tensor) -> None:
    """Write the public layout; the embedding is the verifier's."""
    covered = torch.zeros(256, dtype=torch.bool)
    covered[tokens] = True
    tensors = {name: one.detach().half().contiguous() for name, one in head.state_dict().items()}
    tensors |= {"d2t": tokens - torch.arange(len(tokens)), "t2d": covered}
    config = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": VOCABULARY,
        "dtype": "float16",
        "eagle_aux_hidden_state_layer_ids": list(DEPTHS),
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 1024,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 1,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "tie_word_embeddings": False,
        "vocab_size": 256,
    }
    HEAD.mkdir(exist_ok=True)
    (HEAD / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, HEAD / "model.safetensors")


def main(seconds: float = 270.0) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    verifier = LlamaForCausalLM.from_pretrained(VERIFIER, dtype=torch.float32).eval()
    text = written(verifier)
    tokens = torch.bincount(text.flatten(), minlength=256).argsort(descending=True)[:VOCABULARY]
    tokens = tokens.sort().values
    save(train(verifier, text, tokens, seconds), tokens)


if __name__ == "__main__":
    main()
