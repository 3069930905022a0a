"""The burst of `engine_burst.py` on other engines, where they are installed.

    python benchmarks/peers.py --json OUT.json [--bursts 1,8,32]

vLLM, without speculation and with a draft model whose drafts are kept with 0.7 a position
(`rejection_sample_method="synthetic"`), and transformers' continuous batching. Models have random
weights at their true shapes. Each measurement runs in a process of its own, which frees the GPU.
An engine that is not installed is skipped with a word.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
from engine_burst import ACCEPTANCE, DRAFT_TOKENS, OUTPUT_TOKENS, PROMPT_TOKENS
from engine_stages import Report

from pdvsim.models import Pair, pair


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    generator = numpy.random.default_rng(count)
    return [
        list(map(int, row)) for row in generator.integers(0, vocabulary, (count, PROMPT_TOKENS))
    ]


def folder_of(shape_name: str, root: Path) -> Path:
    """A directory with the `config.json` of a known shape, and nothing else."""
    from transformers import LlamaConfig

    shape = pair(f"{shape_name}:{shape_name}").verifier
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_context_tokens,
        tie_word_embeddings=shape.tied_embeddings,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(root / shape_name)
    return root / shape_name


def timed(
    serve: Callable[[list[list[int]]], int], counts: list[int], models: Pair
) -> dict[str, Any]:
    """Output tokens/s of each burst: the median of three after one that is not counted."""
    results = {}
    for count in counts:
        rates = []
        for _ in range(4):
            batch = prompts(count, models.verifier.vocabulary)
            began_s = time.perf_counter()
            tokens = serve(batch)
            rates.append(tokens / (time.perf_counter() - began_s))
        results[str(count)] = statistics.median(rates[1:])
    return results


def vllm(models: Pair, speculate: bool, counts: list[int]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        speculation = {
            "method": "draft_model",
            "model": str(folder_of(models.draft.name, root)),
            "num_speculative_tokens": DRAFT_TOKENS,
            "rejection_sample_method": "synthetic",
            # Unconditional: entry i is the chance that the first i + 1 drafts are all kept.
            "synthetic_acceptance_rates": [ACCEPTANCE ** (i + 1) for i in range(DRAFT_TOKENS)],
        }
        engine = LLM(
            model=str(folder_of(models.verifier.name, root)),
            load_format="dummy",
            skip_tokenizer_init=True,
            max_model_len=PROMPT_TOKENS + OUTPUT_TOKENS + 2 * DRAFT_TOKENS,
            max_num_seqs=max(counts),
            enable_prefix_caching=False,
            speculative_config=speculation if speculate else None,
        )
        sampling = SamplingParams(
            temperature=0.0, max_tokens=OUTPUT_TOKENS, ignore_eos=True, detokenize=False
        )

        def serve(batch: list[list[int]]) -> int:
            asked = [{"prompt_token_ids": prompt} for prompt in batch]
            done = engine.generate(asked, sampling, use_tqdm=False)
            return sum(len(request.outputs[0].token_ids) for request in done)

        return timed(serve, counts, models)


def transformers(models: Pair, speculate: bool, counts: list[int]) -> dict[str, Any]:
    """Continuous batching; it has no draft models, so `speculate` is always False."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    assert not speculate
    with tempfile.TemporaryDirectory() as name:
        config = LlamaConfig.from_pretrained(folder_of(models.verifier.name, Path(name)))
    torch.set_default_device("cuda")
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM._from_config(config, attn_implementation="paged|sdpa").eval()
    generation = GenerationConfig(
        max_new_tokens=OUTPUT_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0
    )

    def serve(batch: list[list[int]]) -> int:
        done = model.generate_batch(inputs=batch, generation_config=generation)
        return sum(len(request.generated_tokens) for request in done.values())

    return timed(serve, counts, models)


def _child(work: Callable[..., Any], arguments: tuple[Any, ...], results: Any) -> None:
    results.put(work(*arguments))


def in_a_process(work: Callable[..., Any], *arguments: Any, limit_s: float = 500) -> Any:
    """What `work` returns in a fresh process.

    Raises:
        RuntimeError: it ended without a result, or not within `limit_s`.
    """
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    child = context.Process(target=_child, args=(work, arguments, results))
    child.start()
    child.join(limit_s)
    if child.is_alive():
        child.kill()
    if results.empty():
        raise RuntimeError(f"no result: exit status {child.exitcode}")
    return results.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where results go")
    parser.add_argument("--pair", default="tinyllama-1.1b:llama-2-7b")
    parser.add_argument("--bursts", default="1,8,32", help="values of C")
    options = parser.parse_args()
    models, report = pair(options.pair), Report(options.json)
    counts = [int(count) for count in options.bursts.split(",")]
    peers: list[tuple[str, Callable[..., Any], bool]] = [
        ("vllm", vllm, False),
        ("vllm", vllm, True),
        ("transformers", transformers, False),
    ]
    for package, work, speculate in peers:
        name = f"{package}, {'speculation' if speculate else 'plain'}"
        if find_spec(package) is None:
            print(f"{name}: skipped, {package} is not installed")
            continue
        report.section(name, lambda w=work, s=speculate: in_a_process(w, models, s, counts))
    print(json.dumps(report.results, indent=1))


if __name__ == "__main__":
    main()
