"""`predict --formulas`: each closed form beside the simulated value, how far off it is, and why.

A formula gets the same inputs as the simulation: mean stage times from the profile, acceptance,
lengths, and the load. What is left between the two is what the formula leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pdvsim.acceptance import Acceptance
from pdvsim.architectures import Architecture, Config, architecture
from pdvsim.architectures.architecture import LaneSketch, Work
from pdvsim.cell import REAL, Cell
from pdvsim.core import PREFILLS, Request, Stage
from pdvsim.drafters import Draft, pass_bytes, prompt_work
from pdvsim.profile import Profile
from pdvsim.statistics import Interval
from pdvsim.sweep import CellResult
from pdvsim.theory import formulas
from pdvsim.theory.formulas import BatchTime, LaneWork
from pdvsim.work import Work as LaunchWork
from pdvsim.work import work_of

# Of one H100, for profiles without measured ceilings: a copy, and an 8192^3 bf16 product.
COPY_BYTES_PER_S = 3.02e12
MATMUL_FLOPS_PER_S = 786e12


@dataclass(frozen=True, slots=True)
class Line:
    """One formula at one cell.

    Attributes:
        quantity: what both numbers are, with its unit.
        error: formula / simulated - 1; None where the simulation cannot say.
        why: what the formula leaves out here, in a sentence.
    """

    architecture: str
    formula: str
    quantity: str
    value: float
    simulated: Interval | None
    why: str

    @property
    def error(self) -> float | None:
        if self.simulated is None or not self.simulated.value:
            return None
        return self.value / self.simulated.value - 1.0


def closed_forms(results: Sequence[CellResult], profile: Profile) -> list[Line]:
    """Every formula that applies, cell by cell."""
    plain = {r.cell.concurrency: r for r in results if not _Inputs(r, profile, None).speculative}
    return [
        line
        for result in results
        for line in _Inputs(result, profile, plain.get(result.cell.concurrency)).lines()
    ]


@dataclass(frozen=True)
class _Inputs:
    """A cell as the formulas see it."""

    result: CellResult
    profile: Profile
    plain: CellResult | None

    def lines(self) -> Iterator[Line]:
        closed = self.cell.protocol == "closed-loop"
        if self.speculative:
            yield self._expected_tokens()
            if closed and self.plain is not None:
                yield self._leviathan(self.plain)
            if closed and self.batched:
                yield self._magicdec()
                yield self._turbospec()
                yield self._overlap()
        if closed:
            yield self._mva()
        alone = self.architecture.whole_requests and self.architecture.speculative
        if self.cell.rate_per_s is not None and alone:
            yield self._mg1(self.cell.rate_per_s)
        if self.cell.rate_per_s is not None and self.batched:
            yield self._kong(self.cell.rate_per_s)

    def line(
        self, formula: str, quantity: str, value: float, simulated: Interval | None, why: str
    ) -> Line:
        return Line(self.result.label, formula, quantity, value, simulated, why)

    # What goes in

    @property
    def cell(self) -> Cell:
        return self.result.cell

    @cached_property
    def config(self) -> Config:
        return self.cell.config()

    @property
    def batched(self) -> bool:
        return self.config.executor.batched

    @property
    def batch(self) -> int:
        """Requests that share a pass when the system is full."""
        return self.config.batch_cap if self.batched else 1

    @property
    def drafts(self) -> int:
        return self.config.draft_tokens

    @cached_property
    def acceptance(self) -> Acceptance:
        assert self.cell.acceptance != REAL  # a simulation always has one
        return Acceptance(self.cell.acceptance)

    @cached_property
    def a(self) -> float:
        """Acceptance per position; the formulas know only one for all."""
        return self.acceptance.per_position[0]

    @property
    def architecture(self) -> Architecture:
        return architecture(self.config.architecture)

    @property
    def speculative(self) -> bool:
        return self.architecture.speculative and bool(self.config.executor.speculate)

    @cached_property
    def tokens_per_round(self) -> float:
        """Of the executor at hand: without a bonus token at most the draft."""
        if not self.speculative:
            return 1.0
        shares = self.acceptance.distribution()
        executor = self.config.executor
        return float(
            sum(p * executor.tokens_of_round(k, self.drafts) for k, p in enumerate(shares))
        )

    @property
    def rounds(self) -> float:
        """Rounds that a request needs."""
        return self.cell.output_tokens / self.tokens_per_round

    @property
    def context(self) -> float:
        """Mean cached tokens of a request in service."""
        return self.cell.prompt_tokens + self.cell.output_tokens / 2.0

    def stage_s(self, stage: Stage, batch: int) -> float:
        """Mean seconds of a stage for `batch` requests, nothing else running: the device's, or
        the launching host's where it is longer and the executor waits for each stage."""
        host, device = self.profile.file.seconds(stage, self._work(stage, batch, self.context))
        return max(host, device) if self.config.executor.synchronous else device

    def _work(self, stage: Stage, batch: int, context: float) -> LaunchWork:
        prompt = Request(0, self.cell.prompt_tokens, self.cell.output_tokens)
        return work_of(
            self.config.executor, stage, [prompt] * batch, self.drafts, round(context * batch)
        )

    @cached_property
    def prefill_s(self) -> float:
        """Of one prompt."""
        executor = self.config.executor
        stages = executor.prefill if self.speculative else executor.plain_prefill
        return sum(self.stage_s(stage, 1) for stage in stages)

    def round_s(self, batch: int) -> float:
        executor = self.config.executor
        stages = executor.speculate + executor.check if self.speculative else (Stage.DECODE,)
        return sum(self.stage_s(stage, batch) for stage in stages)

    def service_s(self, batch: int) -> float:
        """A request's prefill and rounds, `batch` of them going on together."""
        return self.prefill_s + self.rounds * self.round_s(batch)

    @property
    def prefill_share(self) -> float:
        """Of the simulated device time, passes that prompts share with rounds included."""
        device = {stage: parts["device"] for stage, parts in self.result.stages.items()}
        shared = (*PREFILLS, Stage.MIXED)
        return sum(device.get(str(stage), 0.0) for stage in shared) / sum(device.values())

    # The formulas

    def _expected_tokens(self) -> Line:
        why = "the same acceptance drawn at random; what is left is chance and the cut last round"
        if not self.config.executor.bonus_token:
            why = (
                f"this executor keeps no bonus token: a round yields {self.drafts} at most, "
                f"{self.tokens_per_round:.3g} on average"
            )
        return self.line(
            "Leviathan E",
            "tokens per round",
            formulas.expected_tokens(self.a, self.drafts),
            self.result.metrics["spec_decode_acceptance_length"],
            why,
        )

    def _leviathan(self, plain: CellResult) -> Line:
        draft_passes = self.drafts if self.batched else self.drafts - 1
        decode = self.stage_s(Stage.DECODE, 1)
        ratio = self.stage_s(Stage.DRAFT, 1) / max(draft_passes, 1) / decode
        rates = self.result.metrics["output_throughput"], plain.metrics["output_throughput"]
        simulated = None
        if rates[0] is not None and rates[1] is not None and rates[1].value:
            simulated = Interval(rates[0].value / rates[1].value, None, None)
        checks = sum(self.stage_s(stage, self.batch) for stage in self.config.executor.check)
        dearer = checks / self.stage_s(Stage.DECODE, self.batch)
        return self.line(
            "Leviathan speed-up",
            "x over plain",
            formulas.leviathan_speedup(self.a, self.drafts, ratio),
            simulated,
            f"it lets checking cost one decode step, but at batch {self.batch} it costs "
            f"{dearer:.2f} of them; and it knows no prefill",
        )

    def _magicdec(self) -> Line:
        verify = sum(self.stage_s(s, self.batch) for s in self.config.executor.check)
        draft = self.stage_s(Stage.DRAFT, self.batch) / self.drafts
        rate = self.result.metrics["output_throughput"]
        simulated = None if rate is None else _inverse(rate, 1e3 * self.cell.concurrency)
        return self.line(
            "MagicDec token time",
            "ms per token of a request",
            1e3 * formulas.magicdec_token_time_s(self.a, self.drafts, draft, verify),
            simulated,
            self._batch_and_prefill(),
        )

    def _turbospec(self) -> Line:
        return self.line(
            "TurboSpec goodput",
            "output tokens/s",
            formulas.turbospec_goodput(
                self.a,
                self.drafts,
                self.batch,
                self.context,
                self._batch_time(Stage.DRAFT, self.drafts, 1),
                self._batch_time(Stage.VERIFY, 1, self.drafts + 1),
            ),
            self.result.metrics["output_throughput"],
            self._batch_and_prefill(),
        )

    def _batch_time(self, stage: Stage, passes: int, query_per_request: int) -> BatchTime:
        """T = a N_context + b N_batched + c: the chord of the stage's time between batches 1 and
        C, with what the profile takes for a cached token at C."""
        fit = self.profile.file.stages[stage]
        twice, once = (
            fit.device_s(self._work(stage, self.batch, times * self.context)) for times in (2, 1)
        )
        per_context = (twice - once) / (self.context * self.batch * passes)

        def rest(batch: int) -> float:
            return self.stage_s(stage, batch) / passes - per_context * self.context * batch

        last = max(self.batch, 2)
        slope = (rest(last) - rest(1)) / (query_per_request * (last - 1))
        return BatchTime(per_context, slope, rest(1) - slope * query_per_request)

    def _batch_and_prefill(self) -> str:
        return (
            f"it lets all {self.batch} requests decode in every round and leaves out prefill, "
            f"{self.prefill_share:.0%} of the device's time, during which some or all wait"
        )

    def _overlap(self) -> Line:
        ceilings = self.profile.file.ceilings
        copy = ceilings.copy_bytes_per_s if ceilings else COPY_BYTES_PER_S
        matmul = ceilings.matmul_flops_per_s if ceilings else MATMUL_FLOPS_PER_S
        prompts = self.batch / self.rounds  # prefills for each round of the whole batch
        prefilled = prompts * self.cell.prompt_tokens
        draft, verifier = self.profile.pair.draft, self.profile.pair.verifier
        flops, moved = map(sum, zip(prompt_work(draft), prompt_work(verifier), strict=True))
        lanes = (
            LaneWork(prompts * self.prefill_s, prefilled * flops, prompts * moved),
            self._lane(Stage.DRAFT, draft, self.drafts, 1),
            self._lane(Stage.VERIFY, verifier, 1, self.drafts + 1),
        )
        least_s = formulas.overlap_bound_s(lanes, matmul, copy)
        streams = "its lanes wait for each other, round by round"
        if len(self.architecture.streams) == 1:
            streams = "this architecture overlaps nothing"
        return self.line(
            "overlap bound",
            "output tokens/s at most",
            self.batch * formulas.expected_tokens(self.a, self.drafts) / least_s,
            self.result.metrics["output_throughput"],
            f"a bound: it hides every lane behind the longest, {least_s * 1e3:.3g} ms a round of "
            f"{self.batch}, but {streams}",
        )

    def _lane(self, stage: Stage, shape: Draft, passes: int, queries: int) -> LaneWork:
        tokens = passes * queries * self.batch
        cached = passes * self.batch * self.context * shape.kv_bytes_per_token
        moved = passes * pass_bytes(shape) + cached
        return LaneWork(self.stage_s(stage, self.batch), tokens * shape.flops_per_token, moved)

    def _mva(self) -> Line:
        demands = [self._demand_s(lane) for lane in self.architecture.sketch]
        if self.batched:
            why = "a batch shares its passes, which no product form knows: each takes 1 / batch"
        elif len(demands) > 1:
            why = "its lanes are independent, but threads share a GIL and each model has one lock"
        else:
            why = "one thread does it all, so it is 1 / demand; polls and wake-ups are left out"
        return self.line(
            "closed MVA",
            "requests/s",
            formulas.closed_mva(demands, self.cell.concurrency).throughput,
            self.result.metrics["request_throughput"],
            why,
        )

    def _demand_s(self, lane: LaneSketch) -> float:
        """What a request takes of a lane, `batch` of them sharing the rounds."""
        executor = self.config.executor
        rounds = [
            stage
            for work in lane.work
            if work is not Work.PREFILL
            for stage in work.stages(executor, self.speculative)
        ]
        round_s = sum(self.stage_s(stage, self.batch) for stage in rounds)
        once_s = self.prefill_s if Work.PREFILL in lane.work else 0.0
        return once_s + self.rounds * round_s / self.batch

    def _mg1(self, rate: float) -> Line:
        shares = self.acceptance.distribution()
        executor = self.config.executor
        yields = [executor.tokens_of_round(kept, self.drafts) for kept in range(self.drafts + 1)]
        variance = sum(
            p * (y - self.tokens_per_round) ** 2 for p, y in zip(shares, yields, strict=True)
        )
        # Rounds to reach n tokens: variance n var / E^3 (renewal theory), mean n / E.
        decode_s = self.rounds * self.round_s(1)
        cv2_rounds = variance / (self.cell.output_tokens * self.tokens_per_round)
        cv2 = cv2_rounds * (decode_s / self.service_s(1)) ** 2
        why = "one worker, one request at a time: what is left is chance and a finite run"
        if self.batched:
            why = f"a worker serves up to {self.batch} requests at a time, not one"
        return self.line(
            "M/G/1",
            "mean E2E, ms",
            1e3 * formulas.mg1_response_s(rate, self.service_s(1), cv2),
            self.result.metrics["mean_e2el_ms"],
            why,
        )

    def _kong(self, rate: float) -> Line:
        last = max(self.batch, 2)
        marginal = self.rounds * (self.round_s(last) - self.round_s(1)) / (last - 1)
        return self.line(
            "Kong L = C1 / (1 - RPS C2)",
            "mean E2E, ms",
            1e3 * formulas.kong_latency_s(self.service_s(1), rate, marginal + self.prefill_s),
            self.result.metrics["mean_e2el_ms"],
            "it takes a round's time as linear in the batch, every prefill as a stop of everyone, "
            "and arrivals without variance",
        )


def _inverse(interval: Interval, scale: float) -> Interval | None:
    """`scale` / interval."""
    if not interval.value:
        return None
    low = scale / interval.high if interval.high else None
    high = scale / interval.low if interval.low else None
    return Interval(scale / interval.value, low, high)
