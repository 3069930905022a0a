"""EAGLE-3 heads in the graph executor: drafts of a plain reference, the verifier's own output."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import eagle3_reference as reference
import pytest
import torch
from graph_driver import CPU, PADDED, engine, run, serve, serve_at_random, verifier_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pdvsim.core import GRAPH, Drafter, Request, Stage, Stream
from pdvsim.drafters import HeadShape, head_for, head_of_config
from pdvsim.errors import InputError
from pdvsim.models import ModelShape, shape
from realengine.graph import GraphConfig, GraphEngine, build_engine
from realengine.graph.eagle3 import Head
from realengine.graph.head_weights import load_head, random_head
from realengine.graph.model import Tap, Weights, forward
from realengine.graph.ops import Ragged, TorchOps
from realengine.graph.paged import paged_cache
from realengine.graph.plan import Sizes

torch.set_num_threads(1)
SHAPE = ModelShape("verifier", 6, 32, 4, 2, 48, 64, 128)
VERIFIER = verifier_weights(SHAPE, sharpness=5.0)
LAYER = ModelShape("head", 1, 32, 4, 2, 40, 64, 128)
HEAD = HeadShape(LAYER, 24, SHAPE.hidden, (2, 3, 3))
IDS = sorted(random.Random(0).sample(range(64), 24))
CONFIG = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "vocab_size": 64,
    "draft_vocab_size": 24,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


def saved(folder: Path, config: dict[str, object], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    return folder


def loaded(folder: Path, verifier: Weights = VERIFIER) -> Head:
    config = json.loads((folder / "config.json").read_text())
    found = head_of_config(config, verifier.shape, "head", str(folder))
    return load_head(folder, found, verifier, CPU, torch.float32)


def states_of(verifier: Weights, depths: tuple[int, ...], tokens: list[int]) -> torch.Tensor:
    """The verifier's states of `tokens`, from one pass over all of them."""
    table = torch.tensor([[1]], dtype=torch.int32)
    cache = paged_cache(
        verifier.shape, 2, 128, table, torch.zeros(1, dtype=torch.int64), torch.float32
    )
    tap = Tap.new(depths, len(tokens), verifier.embedding)
    view = Ragged(torch.tensor([[0, len(tokens), 0, 0]]))
    forward(verifier, TorchOps(), cache, torch.tensor(tokens), view, tap)
    return tap.states


def drafted(served: GraphEngine, request: Request, count: int) -> list[int]:
    slot = served._admission.held([request])[request].holding.slot
    return served._state.drafts[slot, :count].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("own_embedding", [True, False])
@pytest.mark.parametrize("before_residual", [True, False])
@pytest.mark.parametrize("lengths", [(), (0, 1, 2, 5)])
@pytest.mark.parametrize("sizes", [Sizes(), PADDED])
def test_drafts_are_those_of_a_plain_reference(
    tmp_path: Path,
    own_embedding: bool,
    before_residual: bool,
    lengths: tuple[int, ...],
    sizes: Sizes,
) -> None:
    """Whatever was accepted, in rounds of whatever lengths, with requests coming and going."""
    head = replace(HEAD, norm_before_residual=before_residual)
    tensors = reference.random_tensors(head, IDS)
    kept = tensors if own_embedding else {k: v for k, v in tensors.items() if "embed" not in k}
    if not own_embedding:
        tensors["embed_tokens.weight"] = VERIFIER.embedding
    folder = saved(tmp_path / "head", CONFIG | {"norm_before_residual": before_residual}, kept)
    rng = random.Random(4)
    config = GraphConfig(
        3,
        draft_lengths=lengths,
        max_requests=4,
        max_context_tokens=100,
        page_tokens=4,
        chunk_tokens=9,
    )
    served = engine(config, VERIFIER, loaded(folder), sizes=sizes)
    assert served.executor is GRAPH.with_drafter(Drafter.EAGLE3)
    requests = [
        Request(
            i,
            (size := rng.randint(1, 20)),
            rng.randint(12, 25),
            prompt=[rng.randrange(64) for _ in range(size)],
            outcomes=[rng.randint(0, 5) for _ in range(40)]
            if lengths
            else [rng.randint(0, 3) for _ in range(40)],
        )
        for i in range(7)
    ]
    waiting, active, compared = list(requests), list[Request](), 0
    while waiting or active:
        while waiting and len(active) < 3:
            active.append(waiting.pop())
            run(served, served.executor.prefill, active[-1:])
        batch = rng.sample(active, rng.randint(1, len(active)))
        count = rng.choice(config.lengths)
        each = [rng.randint(0, count) for _ in batch] if lengths and rng.random() < 0.4 else count
        served.launch(Stage.DRAFT, batch, Stream.MAIN, [], each)
        for i, request in enumerate(batch):
            length = each if isinstance(each, int) else each[i]
            text = [*request.prompt, *request.tokens]
            states = states_of(VERIFIER, head.depths, text[:-1])
            expected = reference.drafts(tensors, head, states, text, length)
            assert drafted(served, request, length) == expected
            compared += length
        run(served, served.executor.check, batch, each)
        for request in [request for request in active if request.finished]:
            served.release(request)
            active.remove(request)
    assert compared > 80 and served.free_pages == served.pages


SMALL = ModelShape("small", 3, 32, 2, 1, 48, 6, 64)
SMALL_VERIFIER = verifier_weights(SMALL, sharpness=9.0)
SMALL_HEAD = HeadShape(replace(LAYER, vocabulary=6), 4, 32, (1, 2, 3))


def small_head() -> Head:
    """Proposes four of six tokens, and is right about once in ten times."""
    head = random_head(SMALL_HEAD, SMALL_VERIFIER, CPU, torch.float32, seed=25)
    sharp = {"output": head.output * 20, "down": head.down * 20, "fusion": head.fusion * 5}
    return replace(head, ids=torch.tensor([0, 2, 3, 5]), **sharp)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 6),
    draft_tokens=st.integers(0, 6),
    chunk_tokens=st.sampled_from([5, 33, 8192]),
    page_tokens=st.sampled_from([1, 4, 16]),
    sizes=st.sampled_from([Sizes(), PADDED]),
)
def test_speculation_is_the_verifiers_own_greedy_output(
    seed: int, count: int, draft_tokens: int, chunk_tokens: int, page_tokens: int, sizes: Sizes
) -> None:
    """Over random prompts, batch mixes, late arrivals and pre-emptions."""
    rng = random.Random(seed)
    requests = []
    for i in range(count):
        prompt = [rng.randrange(6) for _ in range(rng.randint(1, 20))]
        requests.append(Request(i, len(prompt), rng.randint(1, 20), prompt=prompt))
    config = GraphConfig(
        draft_tokens,
        max_requests=4,
        max_context_tokens=48,
        page_tokens=page_tokens,
        chunk_tokens=chunk_tokens,
    )
    served = engine(config, SMALL_VERIFIER, small_head(), sizes=sizes)
    serve_at_random(served, requests, rng)
    assert served.free_pages == served.pages
    plain = engine(config, SMALL_VERIFIER, None)
    for request in requests:
        again = Request(
            request.id, request.prompt_tokens, request.output_tokens, prompt=request.prompt
        )
        serve(plain, [again], plain=True)
        assert request.tokens == again.tokens


def test_some_drafts_are_kept() -> None:
    served = engine(
        GraphConfig(3, max_requests=8, max_context_tokens=60), SMALL_VERIFIER, small_head()
    )
    requests = [Request(i, 5, 20) for i in range(8)]
    serve(served, requests)
    kept, made = (sum(getattr(r, f"{n}_tokens") for r in requests) for n in ("accepted", "drafted"))
    assert 0.08 < kept / made < 0.5


def test_a_cancelled_request_leaves_its_batch_mates_alone() -> None:
    requests = [Request(i, 6, 20) for i in range(4)]
    config = GraphConfig(3, draft_lengths=(0, 2), max_requests=8, max_context_tokens=60)
    served = engine(config, SMALL_VERIFIER, small_head())
    run(served, served.executor.prefill, requests)
    requests[1].cancelled = True
    served.release(requests[1])
    for length in [3, 0, 2] * 10:
        run(served, served.executor.speculate + served.executor.check, requests, length)
    plain = engine(config, SMALL_VERIFIER, None)
    for i in (0, 2, 3):
        again = Request(i, 6, 20)
        serve(plain, [again], plain=True)
        assert requests[i].tokens == again.tokens
        served.release(requests[i])
    assert served.free_pages == served.pages


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 2}, "a head has 1"),
        ({"vocab_size": 60}, "vocab_size is 60"),
        ({"draft_vocab_size": 99}, "from 1 to vocab_size"),
        ({"target_hidden_size": 48}, "states 48 wide"),
        ({"fc_norm": True}, "fc_norm is set"),
        ({"norm_output": True}, "norm_output is set"),
        ({"eagle_config": {"use_aux_hidden_state": False}}, "three depths"),
        ({"eagle_aux_hidden_state_layer_ids": [1, 9, 2]}, "three of the 6 layers"),
        ({"attention_bias": True}, "biases"),
    ],
)
def test_heads_that_compute_something_else_are_refused(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        head_of_config(CONFIG | change, SHAPE, "head", "config.json")


def test_depths_are_the_usual_ones_or_those_named() -> None:
    def depths(**more: object) -> tuple[int, ...]:
        return head_of_config(CONFIG | more, SHAPE, "head", "config.json").depths

    key = "eagle_aux_hidden_state_layer_ids"
    assert depths() == (2, 3, 3)
    assert depths(**{key: [1, 4, 6]}) == (1, 4, 6)
    assert depths(eagle_config={key: [1, 3, 5]}) == (2, 4, 6)


def test_damaged_checkpoints_say_what_is_wrong(tmp_path: Path) -> None:
    tensors = reference.random_tensors(HEAD, IDS)
    for change, words in (
        ({"fc.weight": torch.ones(3, 3)}, r"fc\.weight.*\(3, 3\)"),
        ({"d2t": torch.full((24,), 64)}, "tokens outside 64"),
        ({"extra.weight": torch.ones(3)}, "no use for"),
    ):
        folder = saved(tmp_path / "head", CONFIG, tensors | change)
        with pytest.raises(InputError, match=words):
            loaded(folder)
    del tensors["d2t"]
    with pytest.raises(InputError, match="no d2t"):
        loaded(saved(tmp_path / "head", CONFIG, tensors))


def test_an_engine_is_built_from_a_heads_name_or_directory(tmp_path: Path) -> None:
    tiny = shape("tiny")
    content = CONFIG | {"hidden_size": tiny.hidden, "vocab_size": tiny.vocabulary}
    whole = replace(LAYER, hidden=tiny.hidden, vocabulary=tiny.vocabulary, head_size=0)
    head = HeadShape(whole, 24, tiny.hidden, (2, 1, 0))
    folder = saved(tmp_path / "mine", content, reference.random_tensors(head, IDS))
    for reference_ in ("eagle3:tiny", f"{folder}:tiny"):
        built = build_engine(
            reference_, GraphConfig(2, max_requests=2, max_context_tokens=40), "cpu"
        )
        requests = [Request(i, 5, 9) for i in range(2)]
        serve(built, requests)
        assert [len(request.tokens) for request in requests] == [9, 9]


def test_a_heads_floor_counts_what_a_step_reads() -> None:
    """Bytes as in the public description: 0.77 GB a step and 0.1 GB once a round."""
    head = head_for(shape("llama-2-7b"))
    assert head.depths == (2, 16, 29)
    assert head.fusion_parameters == 3 * 4096 * 4096
    assert 0.75e9 < 2 * head.step_parameters < 0.78e9
    assert head.kv_bytes_per_token == 2 * 4096 * 2
    assert head.floor_s(1, 0, 1e12, 1e15) == pytest.approx(2 * head.step_parameters / 1e12)
