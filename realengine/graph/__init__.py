"""The graph executor: batched speculative decoding over a paged KV cache, from CUDA graphs.

paged      who holds which page, and the tensors the pages live in
state      what the device remembers of each request
ops        products, attention, norms: what they do, and their plain PyTorch form (CPU, reference)
kernels    the same as Triton device code; triton_ops launches it
thin       matrix products of few rows, where our kernels beat cuBLAS on the device
model      a forward pass over ops;  weights: random, or from a checkpoint;  rope: rotary tables
sampling   greedy and lossless speculative sampling, batched
drafting   what proposes tokens, and a draft model;  eagle3: a head over the verifier's states
drafters   which of them an engine runs
stages     the verifier's prefill, verify and decode as device programs of one flat input
config     what an engine is asked for;  memory: how many pages fit
plan       rows to flat inputs: padding, chunks of prompts;  inputs: requests to rows
runner     runs programs: at once on the CPU, as CUDA graphs on streams (`realengine.device`)
capture    which graphs an engine has
engine     admission, launch, settle, release: `realengine.engine.Engine`
build      from models to an engine
"""

from realengine.graph.build import build_engine
from realengine.graph.config import GraphConfig
from realengine.graph.engine import GraphEngine, GraphTicket
from realengine.graph.paged import OutOfPages

__all__ = ["GraphConfig", "GraphEngine", "GraphTicket", "OutOfPages", "build_engine"]
