"""Rules about tokens: acceptance, and what greedy decoding fixes."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from pdvsim.audit.finding import Finding, Limits, Severity
from pdvsim.audit.rules_load import Checked, names
from pdvsim.audit.table import Table

AGREE = 0.01  # relative
LENGTH_AGREE = 0.03  # relative; rate and length may be over different windows
RATE_AGREE = 0.002  # absolute, on a share of 1
MOST_ORDERS = 16  # of prompts; with more, each load is an order of its own

Work = tuple[int, int]  # drafted and output tokens of one request


def same_requests(table: Table, limits: Limits) -> Checked:
    """Greedy decoding of one prompt takes the same tokens under every system and load."""
    if not table.same_requests:
        return 0, []
    findings = []
    by_load: dict[float, dict[str, set[Work]]] = {}
    checked = 0
    for load, cells in table.by_load():
        values: dict[str, set[Work]] = defaultdict(set)
        for cell in cells:
            checked += bool(cell.done)
            for request in cell.done:
                values[request.id].add((request.drafted or 0, request.output_tokens or 0))
        by_load[load] = values
        differ = sorted(id for id, seen in values.items() if len(seen) > 1)
        if differ:
            findings.append(
                Finding(
                    "same_requests",
                    Severity.WARNING,
                    names(cells),
                    f"at load {load:g} {len(differ)} of {len(values)} requests took different "
                    f"tokens under different systems, though greedy decoding of one prompt "
                    f"cannot: the systems did not do the same work",
                    {
                        "drafted_and_output_tokens": [
                            f"{id}: {' or '.join(f'{d} -> {o}' for d, o in sorted(values[id]))}"
                            for id in differ[:10]
                        ]
                    },
                    "The generated tokens of these requests under both systems, compared.",
                )
            )
    orders = _orders_of_prompts(by_load)
    if len(orders) > 1:
        spans = [", ".join(f"{load:g}" for load in loads) for loads in orders]
        findings.append(
            Finding(
                "same_requests",
                Severity.NOTE,
                names([cell for cell in table.cells if cell.done]),
                f"the loads fall into {len(orders)} groups between which request ids took other "
                f"tokens: the prompts were not in the same order in every run",
                {"loads_of_one_order": spans},
                "The prompt of each request id in each run.",
            )
        )
    return checked, findings


def _orders_of_prompts(
    by_load: dict[float, dict[str, set[Work]]],
) -> list[list[float]]:
    """Loads in groups within which most request ids took the same tokens."""
    groups: list[tuple[dict[str, set[Work]], list[float]]] = []
    for load, values in sorted(by_load.items(), reverse=True):
        for known, loads in groups[:MOST_ORDERS]:
            shared = known.keys() & values.keys()
            if 2 * sum(bool(known[id] & values[id]) for id in shared) >= len(shared):
                loads.append(load)
                known.update({id: values[id] for id in values.keys() - shared})
                break
        else:
            groups.append((dict(values), [load]))
    return [sorted(loads) for _, loads in groups]


def acceptance(table: Table, limits: Limits) -> Checked:
    """Acceptance against accepted tokens, drafted tokens and output tokens."""
    checked, findings = 0, []
    for cell in table.cells:
        drafted = sum(r.drafted or 0 for r in cell.done)
        accepted = sum(r.accepted or 0 for r in cell.done)
        rate, length, per_round = cell.acceptance_rate, cell.accepted_length, cell.draft_tokens
        checked += bool(drafted) or rate is not None or length is not None
        problems = []
        if rate is not None and not 0 <= rate <= 1:
            problems.append((f"an acceptance rate of {rate:.4g}", "it is a share of 1"))
        if length is not None and per_round:
            problems += _round_problems(length, per_round, rate, cell.bonus_token)
        if any((r.accepted or 0) > (r.drafted or 0) for r in cell.done if r.drafted):
            problems.append(("more accepted than drafted tokens", "no request can have them"))
        ratios = [(r.accepted or 0) / r.drafted for r in cell.done if r.drafted]
        if rate is not None and ratios and 0 <= rate <= 1:
            pooled = accepted / drafted
            if min(abs(rate - pooled), abs(rate - fmean(ratios))) > RATE_AGREE:
                fact = f"its requests give {pooled:.4f}"
                problems.append((f"an acceptance rate of {rate:.4f}", fact))
        findings += [
            Finding(
                "acceptance",
                Severity.ERROR,
                (cell.name,),
                f"{cell.name} states {claim}, but {fact}",
                {"drafted": drafted, "accepted": accepted},
                "Drafted and kept tokens of every round.",
            )
            for claim, fact in problems
        ]
    findings += _corrections_counted(table)
    return checked, findings


def _round_problems(
    length: float, drafts: float, rate: float | None, bonus: bool
) -> list[tuple[str, str]]:
    """(claim, what stands against it) of the tokens of a round, itself and beside the rate.

    A round of L drafts with rate a yields 1 + a L tokens; without the bonus token a round that
    keeps all L, which at most a share a of the rounds do, yields one less.
    """
    most = drafts + 1 if bonus else drafts
    if not 1 <= length <= most + AGREE:
        return [(f"{length:.4g} tokens a round", f"{drafts:.4g} drafts give 1 to {most:.4g}")]
    if rate is None:
        return []
    implied = 1 + rate * drafts
    least = implied if bonus else implied - rate
    slack = LENGTH_AGREE * length
    if least - slack <= length <= implied + slack:
        return []
    says = f"{implied:.4g}" if bonus else f"{least:.4g} to {implied:.4g}"
    claim = f"an acceptance rate of {rate:.4g} with {length:.4g} tokens a round"
    return [(claim, f"the rate implies {says}")]


def _corrections_counted(table: Table) -> list[Finding]:
    """ "Accepted" tokens that are all output tokens include the verifier's own."""
    cells = [
        cell
        for cell in table.cells
        if cell.done
        and cell.draft_tokens
        and all(r.drafted and r.accepted == r.output_tokens for r in cell.done)
    ]
    if not cells:
        return []
    drafted = sum(r.drafted or 0 for cell in cells for r in cell.done)
    tokens = sum(r.accepted or 0 for cell in cells for r in cell.done)
    rounds = sum((r.drafted or 0) / (cell.draft_tokens or 1) for cell in cells for r in cell.done)
    # A round yields its kept drafts and the verifier's correction; a round that keeps all L
    # drafts needs none, and takes L - 1 of the tokens beyond one a round.
    full = sum(
        ((r.accepted or 0) - (r.drafted or 0) / (cell.draft_tokens or 1))
        // max((cell.draft_tokens or 1) - 1, 1)
        for cell in cells
        for r in cell.done
    )
    least, most = (tokens - rounds) / drafted, (tokens - rounds + full) / drafted
    return [
        Finding(
            "acceptance",
            Severity.NOTE,
            names(cells),
            f"'accepted' equals output tokens in every request, so it counts the verifier's own "
            f"tokens: {tokens / drafted:.1%} as stated, but {least:.1%} to {most:.1%} of the "
            f"drafts were kept",
            {"drafted": drafted, "accepted_as_stated": tokens, "rounds": rounds},
            "Kept drafts and corrections counted apart, round by round.",
        )
    ]
