"""Rules about the machine: memory that a model pair must and can take, and least times."""

from __future__ import annotations

from itertools import combinations

from pdvsim.audit.finding import Finding, Limits, Severity
from pdvsim.audit.rules_load import Checked, names, rounded
from pdvsim.audit.table import Cell, Table
from pdvsim.models import ModelShape, Pair, shapes

MIB = 2**20
LEAST_WEIGHTS = 0.98  # reported MiB are rounded and sampled
# CUDA context, library workspaces, captured graphs and a fragmented allocator.
OVERHEAD_MIB = 4096.0
OVERHEAD_SHARE = 0.10
GROWTH = 0.005  # memory that differs more than this between cells is allocated on demand
LENGTH_SPREAD = 4  # longest request against the mean
FASTER_THAN_FLOOR = 0.95
DISTINCT_WEIGHTS = 1.1
SAME_MEMORY = 0.01
SAME_LATENCY = 0.03


def memory(table: Table, limits: Limits) -> Checked:
    """Least: the weights. Most: weights, caches of what can be in flight, and overhead.

    A pool taken in advance may fill the GPU whatever the models are; memory that changes with
    the load shows that there is none.
    """
    cells = [cell for cell in table.cells if cell.pair and cell.memory_mib]
    findings = []
    too_small = [c for c in cells if (c.memory_mib or 0) < LEAST_WEIGHTS * _weights_mib(c)]
    if too_small:
        findings.append(
            _memory_finding(
                too_small,
                Severity.ERROR,
                f"the weights alone take {_weights_mib(too_small[0]):,.0f} MiB in bf16",
                limits,
            )
        )
    too_large = [c for c in cells if (c.memory_mib or 0) > _most_mib(c)]
    if too_large:
        on_demand = table.demand_memory
        values = [cell.memory_mib or 0.0 for cell in cells]
        if on_demand is None and len(values) > 1:
            on_demand = max(values) > (1 + GROWTH) * min(values)
        severity = {True: Severity.ERROR, None: Severity.WARNING, False: Severity.NOTE}[on_demand]
        most = max(_most_mib(cell) for cell in too_large)
        why = f"weights, caches and overhead explain at most {most:,.0f} MiB"
        if on_demand:
            why += ", and memory moves with the load, so no pool was taken in advance"
        else:
            why += "; a pool taken in advance would explain it"
        findings.append(_memory_finding(too_large, severity, why, limits))
    if limits.gpu_memory_mib is not None:
        over = [c for c in cells if (c.memory_mib or 0) > (limits.gpu_memory_mib or 0)]
        if over:
            why = f"the GPU has {limits.gpu_memory_mib:,.0f} MiB"
            findings.append(_memory_finding(over, Severity.ERROR, why, limits))
    return len(cells), findings


def _weights_mib(cell: Cell) -> float:
    """Weights of the models that must be loaded: without speculation the verifier's alone."""
    assert cell.pair is not None
    loaded = cell.pair.verifier if cell.draft_tokens == 0 else cell.pair
    return loaded.weight_bytes / MIB


def _most_mib(cell: Cell) -> float:
    """The most that a pair can need: weights, caches of what can be in flight, overhead."""
    pair = cell.pair
    assert pair is not None
    known = [n for n in (cell.offered, cell.concurrency) if n is not None]
    in_flight = min(known) if known else (cell.samples or 1)
    tokens = float(min(one.max_context_tokens for one in pair.decoders))
    if cell.tokens_per_request is not None:
        tokens = min(tokens, LENGTH_SPREAD * cell.tokens_per_request)
    per_token = pair.draft.kv_bytes_per_token + pair.verifier.kv_bytes_per_token
    needed = _weights_mib(cell) + in_flight * tokens * per_token / MIB
    return needed * (1 + OVERHEAD_SHARE) + OVERHEAD_MIB


def _memory_finding(cells: list[Cell], severity: Severity, why: str, limits: Limits) -> Finding:
    pair = cells[0].pair
    assert pair is not None
    values = [cell.memory_mib or 0.0 for cell in cells]
    known = severity is not Severity.NOTE  # a pool fits any pair
    fits = _pairs_that_fit(min(values), pair.verifier.vocabulary) if known else []
    closest = f"; the known pair that comes closest is {fits[0]}" if fits else ""
    span = " to ".join(dict.fromkeys(f"{value:,.0f}" for value in (min(values), max(values))))
    return Finding(
        "memory",
        severity,
        names(cells),
        f"{span} MiB are reported for {pair.name}, but {why}{closest}",
        {
            "memory_mib": rounded(values, 6),
            "weights_bytes": float(pair.weight_bytes),
            "weights_mib": round(pair.weight_bytes / MIB, 1),
            "most_mib": rounded([_most_mib(cell) for cell in cells], 6),
            "pairs_closest_below": fits,
        },
        "The parameter counts and dtypes that were loaded, and memory after loading and at peak.",
    )


def _pairs_that_fit(memory_mib: float, vocabulary: int) -> list[str]:
    """Known pairs with that vocabulary whose weights fit, closest first: 'draft:verifier (weights
    MiB)'."""
    known = [shape for shape in shapes().values() if shape.vocabulary == vocabulary]
    pairs = [Pair(d, v) for d in known for v in known if d.parameters <= v.parameters]
    fitting = [p for p in pairs if p.weight_bytes / MIB <= memory_mib]
    fitting.sort(key=lambda p: (-p.weight_bytes, p.name))
    return [f"{p.name} ({p.weight_bytes / MIB:,.0f} MiB)" for p in fitting[:3]]


def floors(table: Table, limits: Limits) -> Checked:
    """Nothing runs faster than its bytes and FLOPs allow.

    A round of one request drafts L tokens one after the other and then verifies them: L passes
    over the draft weights and one over the verifier's, for E tokens (E is the accepted length,
    at most L + 1). Caches, attention and launches are left out, so this is a floor. Where a file
    only names the model it served, how it was served is not known, and the finding a warning.
    """
    checked, findings = 0, []
    for cell in table.cells:
        if cell.pair is None and cell.served is not None:
            checked += cell.tpot_s is not None or cell.output_throughput is not None
            findings += _beyond_one_gpu(cell, cell.served, limits)
        floor = _token_floor_s(cell, limits)
        if floor is None:
            continue
        observed = _seconds_per_token(cell)
        total = cell.output_throughput
        least_gpu_s = _token_flops(cell) / limits.flops_per_s
        checked += observed is not None or total is not None
        if observed is not None and observed < FASTER_THAN_FLOOR * floor:
            findings.append(
                _floor_finding(cell, "a token of one request takes", observed, floor, limits)
            )
        elif total and 1 / total < FASTER_THAN_FLOOR * least_gpu_s:
            findings.append(
                _floor_finding(cell, "an output token takes", 1 / total, least_gpu_s, limits)
            )
        elif total and cell.concurrency and total * FASTER_THAN_FLOOR > cell.concurrency / floor:
            findings.append(
                _floor_finding(
                    cell,
                    f"each of {cell.concurrency:g} requests gets a token in",
                    cell.concurrency / total,
                    floor,
                    limits,
                )
            )
    return checked, findings


def _beyond_one_gpu(cell: Cell, model: ModelShape, limits: Limits) -> list[Finding]:
    """Faster than one GPU can be with this model in bf16, as far as the file says."""
    drafts, per_round = int(cell.draft_tokens or 0), max(cell.accepted_length or 1.0, 1.0)
    rates = (limits.bytes_per_s, limits.flops_per_s)
    claims = [
        (
            "a token of one request takes",
            cell.tpot_s,
            model.floor_s(drafts + 1, 0, *rates) / per_round,
        ),
        (
            "an output token takes",
            1 / cell.output_throughput if cell.output_throughput else None,
            model.flops_per_token / limits.flops_per_s,
        ),
    ]
    return [
        Finding(
            "floors",
            Severity.WARNING,
            (cell.name,),
            f"{what} {observed * 1e3:.3g} ms, but {model.name} in bf16 takes at least "
            f"{floor * 1e3:.3g} ms on one GPU of {limits.bytes_per_s / 1e12:g} TB/s and "
            f"{limits.flops_per_s / 1e15:g} PFLOP/s: several GPUs, smaller weights or speculation "
            f"would explain it",
            {"observed_s": float(f"{observed:.4g}"), "floor_s": float(f"{floor:.4g}")},
            "The number of GPUs, the dtype of the weights, and whether tokens were speculated.",
        )
        for what, observed, floor in claims
        if observed is not None and observed < FASTER_THAN_FLOOR * floor
    ]


def _tokens_per_round(cell: Cell) -> float | None:
    """Accepted length, else the most that the acceptance rate (or L alone) allows."""
    if cell.draft_tokens is None:
        return None
    if cell.accepted_length:
        return cell.accepted_length
    kept = 1.0 if cell.acceptance_rate is None else min(1.0, max(0.0, cell.acceptance_rate))
    return 1.0 + kept * cell.draft_tokens


def _token_floor_s(cell: Cell, limits: Limits) -> float | None:
    """Least seconds between two tokens of one request."""
    per_round = _tokens_per_round(cell)
    if cell.pair is None or per_round is None or cell.draft_tokens is None:
        return None
    rates = (limits.bytes_per_s, limits.flops_per_s)
    drafts = cell.draft_tokens * cell.pair.draft.floor_s(1, 0, *rates)
    return (drafts + cell.pair.verifier.floor_s(int(cell.draft_tokens) + 1, 0, *rates)) / per_round


def _token_flops(cell: Cell) -> float:
    """FLOPs behind one output token."""
    per_round = _tokens_per_round(cell)
    assert cell.pair is not None and cell.draft_tokens is not None and per_round is not None
    drafts = cell.draft_tokens * cell.pair.draft.flops_per_token
    return (drafts + (cell.draft_tokens + 1) * cell.pair.verifier.flops_per_token) / per_round


def _seconds_per_token(cell: Cell) -> float | None:
    """Measured seconds per output token of a request: TPOT, else latency / tokens."""
    if cell.tpot_s is not None:
        return cell.tpot_s
    if cell.mean_latency_s is not None and cell.tokens and cell.samples:
        return cell.mean_latency_s * cell.samples / cell.tokens
    return None


def _floor_finding(cell: Cell, what: str, observed: float, floor: float, limits: Limits) -> Finding:
    assert cell.pair is not None
    return Finding(
        "floors",
        Severity.ERROR,
        (cell.name,),
        f"{what} {observed * 1e3:.3g} ms, but reading {cell.pair.name} at "
        f"{limits.bytes_per_s / 1e12:g} TB/s and {limits.flops_per_s / 1e15:g} PFLOP/s takes at "
        f"least {floor * 1e3:.3g} ms",
        {
            "observed_s": float(f"{observed:.4g}"),
            "floor_s": float(f"{floor:.4g}"),
            "tokens_per_round": float(_tokens_per_round(cell) or 0),
            "draft_tokens": float(cell.draft_tokens or 0),
            "bytes_per_s": limits.bytes_per_s,
        },
        "The number of GPUs, their bandwidth, and a profile of one step.",
    )


def one_configuration(table: Table, limits: Limits) -> Checked:
    """Pairs of different size that show the same memory and speed are one pair, measured twice."""
    at: dict[tuple[str, float | None], dict[str, Cell]] = {}
    for cell in table.cells:
        if cell.pair:
            at.setdefault((cell.system, cell.load), {})[cell.pair.name] = cell
    checked, alike = 0, dict[tuple[Pair, Pair], list[tuple[Cell, Cell]]]()
    for cells in at.values():
        for a, b in combinations(cells.values(), 2):
            assert a.pair is not None and b.pair is not None
            pairs = (a.pair, b.pair)
            small, large = sorted(pairs, key=lambda pair: pair.weight_bytes)
            if large.weight_bytes < DISTINCT_WEIGHTS * small.weight_bytes:
                continue
            checked += 1
            if _alike(a, b):
                cells_of = (a, b) if pairs == (small, large) else (b, a)
                alike.setdefault((small, large), []).append(cells_of)
    return checked, [_one_configuration(*pairs, found) for pairs, found in alike.items()]


def _alike(a: Cell, b: Cell) -> bool:
    def close(x: float | None, y: float | None, tolerance: float) -> bool:
        return x is not None and y is not None and abs(x - y) <= tolerance * max(x, y)

    return close(a.memory_mib, b.memory_mib, SAME_MEMORY) and close(
        a.mean_latency_s, b.mean_latency_s, SAME_LATENCY
    )


def _one_configuration(small: Pair, large: Pair, alike: list[tuple[Cell, Cell]]) -> Finding:
    return Finding(
        "one_configuration",
        Severity.ERROR,
        names([cell for cell, _ in alike]),
        f"{small.name} and {large.name} show the same memory and latency in {len(alike)} cells, "
        f"though their weights differ by {(large.weight_bytes - small.weight_bytes) / MIB:,.0f} "
        f"MiB: one configuration measured twice",
        {
            "weights_mib": [small.weight_bytes / MIB, large.weight_bytes / MIB],
            "memory_mib": rounded([m for pair in alike for m in (c.memory_mib for c in pair)], 6),
            "latency_s": rounded([m for pair in alike for m in (c.mean_latency_s for c in pair)]),
        },
        "The configuration that each run logged, and the parameter counts that were loaded.",
    )
