"""What kept questions cost, from documents: arithmetic, with every assumption an option.

    python benchmarks/cost.py                                  # 10,000 kept questions of two hops
    python benchmarks/cost.py --hops 3 --keep left_one_out=0.5 --model gpt-4.1-mini

The prompts, the numbers of calls and the prices are this version's. All else is ASSUMED: which share of the questions
a step keeps, which no real model has shown; how long passages and replies are; how many replies are repaired, and how
many answers compared; and how fast a server of one's own is. `stepsearch-data audit` shows the shares of a real build.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from stepsearch_data.llm.money import BATCH_SHARE, price_of, tokens_in
from stepsearch_data.stages.model import AROUND, load_prompt
from stepsearch_data.stages.model.bounds import TOKENS_A_QUOTE, TOKENS_AN_ANSWER
from stepsearch_data.stages.model.estimate import TOKENS_A_QUERY

KEEPS = {"compose": 0.85, "rules": 0.95, "closed_book": 0.80, "answerable": 0.85, "left_one_out": 0.75, "unique": 0.85}
HOP = 120  # tokens of a hop that is written, as JSON
MILLION = 1e6


class Line(NamedTuple):
    """What is asked for all questions together: tokens of first turns, and of repairs, which are never batched."""

    name: str
    calls: float
    prompt: float
    reply: float
    repair_prompt: float
    repair_reply: float

    def tokens(self) -> tuple[float, float]:
        """Return the tokens of prompts and of replies."""
        return self.prompt + self.repair_prompt, self.reply + self.repair_reply


@dataclass(frozen=True)
class Arithmetic:
    """The assumptions."""

    kept: int
    hops: int
    keeps: dict[str, float]
    samples: int
    whole: float
    passage: int
    question: int
    repairs: float
    compared: float
    queries: int

    @property
    def chains(self) -> float:
        """Return how many chains must be drawn."""
        return self.kept / math.prod(self.keeps.values())

    def lines(self) -> Iterator[Line]:
        """Yield what is asked, in the order of the build."""
        question, gold, read = self.question, self.hops * self.passage, self.hops * TOKENS_A_QUOTE + TOKENS_AN_ANSWER
        yield self._line("compose", self.chains, "compose", gold, (self.hops + 1) * HOP)
        asked = self.chains * self.keeps["compose"]
        all_checks = asked * self.whole  # they go on, whatever fails
        asked *= self.keeps["rules"]
        readings = {
            "closed_book": ("recall", 1, question, TOKENS_AN_ANSWER),
            "answerable": ("read", 1, question + gold, read),
            "left_one_out": ("read", self.hops, question + gold, read),
            "unique": ("unique", 1, question + gold + AROUND * self.passage, read),
        }
        compared = 0.0
        for check, (prompt, parts, passages, reply) in readings.items():
            calls = (all_checks + asked * (1 - self.whole)) * self.samples * parts
            yield self._line(check, calls, prompt, passages, reply)
            compared += calls * self.compared
            asked *= self.keeps[check]
        yield self._line("same", compared, "same", question + 2 * TOKENS_AN_ANSWER, TOKENS_AN_ANSWER)
        yield self._line("queries", self.kept * self.hops, "queries", 3 * question, self.queries * TOKENS_A_QUERY)

    def total(self) -> Line:
        """Return all lines together."""
        return Line("all", *(sum(column) for column in list(zip(*self.lines(), strict=True))[1:]))

    def _line(self, name: str, calls: float, prompt: str, shown: int, reply: int) -> Line:
        asked = tokens_in(load_prompt(prompt).text) + shown
        again = calls * self.repairs
        return Line(name, calls + again, calls * asked, calls * reply, again * (asked + reply), again * reply)


def main() -> None:
    """Print what each step asks, then what all of it costs: with each model, and by the number of hops."""
    options = parsed()
    keeps = KEEPS | {name: float(share) for name, _, share in (each.partition("=") for each in options.keep)}
    names = ("kept", "samples", "whole", "passage", "question", "repairs", "compared", "queries")
    given = {name: getattr(options, name) for name in names}
    sums = {hops: Arithmetic(hops=hops, keeps=keeps, **given) for hops in (2, 3, 4)}
    chosen = sums[options.hops]
    told = ", ".join(f"{name} {share:g}" for name, share in keeps.items())
    print(f"{chosen.kept:,} kept questions of {chosen.hops} hops from {chosen.chains:,.0f} chains")
    print(f"ASSUMED: {told}\n")
    print(f"{'':<14}{'calls':>10}{'tokens in':>13}{'tokens out':>13}")
    for line in (*chosen.lines(), chosen.total()):
        prompt, reply = line.tokens()
        print(f"{line.name:<14}{line.calls:>10,.0f}{prompt / MILLION:>11,.1f} M{reply / MILLION:>11,.1f} M")
    print(f"\n{'US dollars':<14}{'online':>10}{'by batch':>13}{'a question':>13}")
    models = options.model or ["gpt-4o-mini", "gpt-4.1-nano", "gpt-4.1-mini", "gpt-4.1", "gpt-4o"]
    for model in models:
        online, batch = dollars(chosen.total(), model)
        print(f"{model:<14}{online:>10,.0f}{batch:>13,.0f}{online / chosen.kept:>13.4f}")
    speed = f"{options.reads:,} tokens in and {options.writes:,} out a second, ${options.hour:g} an hour"
    print(f"\nThe same shares for all hops; a server of one's own: ASSUMED {speed}")
    print(f"{'hops':<14}{'calls':>10}{'in and out':>13}{models[0]:>13}{'by batch':>10}{'own server':>18}")
    for hops, each in sums.items():
        total = each.total()
        (prompt, reply), (online, batch) = total.tokens(), dollars(total, models[0])
        hours = (prompt / options.reads + reply / options.writes) / 3600
        tokens, own = (
            f"{prompt / MILLION:,.0f} + {reply / MILLION:,.0f} M",
            f"{hours:.1f} h, ${hours * options.hour:,.0f}",
        )
        print(f"{hops:<14}{total.calls:>10,.0f}{tokens:>13}{f'${online:,.0f}':>13}{f'${batch:,.0f}':>10}{own:>18}")


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=int, default=10_000, help="questions that pass all checks")
    parser.add_argument("--hops", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--keep", action="append", default=[], metavar="STEP=SHARE", help=f"of {', '.join(KEEPS)}")
    parser.add_argument("--samples", type=int, default=3, help="as verify.samples")
    parser.add_argument("--whole", type=float, default=0.05, help="as verify.sample_all")
    parser.add_argument("--passage", type=int, default=110, help="tokens of a passage")
    parser.add_argument("--question", type=int, default=30, help="tokens of a question")
    parser.add_argument("--repairs", type=float, default=0.1, help="share of calls whose reply is repaired once")
    parser.add_argument("--compared", type=float, default=0.1, help="share of readings that need `same`")
    parser.add_argument("--queries", type=int, default=4, help="as queries.per_sub_question")
    parser.add_argument("--model", action="append", help="one of llm/prices.toml")
    parser.add_argument("--reads", type=int, default=20_000, help="tokens a second that a server of one's own reads")
    parser.add_argument("--writes", type=int, default=3_000, help="tokens a second that it writes")
    parser.add_argument("--hour", type=float, default=2.5, help="US dollars of an hour of it")
    options = parser.parse_args()
    unknown = [each for each in options.keep if each.partition("=")[0] not in KEEPS]
    if unknown:
        parser.error(f"--keep {unknown[0]}: expected STEP=SHARE, with a step of {', '.join(KEEPS)}")
    return options


def dollars(total: Line, model: str) -> tuple[float, float]:
    """Return what all costs online, and with all but repairs in batches."""
    price = price_of(model, {})
    if price is None:
        raise SystemExit(f"prices.toml has no {model}")
    first = (total.prompt * price.prompt + total.reply * price.completion) / MILLION
    repairs = (total.repair_prompt * price.prompt + total.repair_reply * price.completion) / MILLION
    return first + repairs, first * BATCH_SHARE + repairs


if __name__ == "__main__":
    main()
