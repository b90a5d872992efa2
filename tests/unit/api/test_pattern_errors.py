"""Wrong patterns are refused at definition time, with place and mend; and what is let through runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import gillnet as gn
from gillnet import col
from gillnet.core.errors import DefinitionError
from gillnet.operators.features import FeatureOperator
from gillnet.plan.serde import dumps, loads

payments = gn.Stream(
    "payments",
    schema=gn.Schema(tx_id=gn.String(), ts=gn.Timestamp("ms"), card_id=gn.String(), amount=gn.Decimal(2)),
    id="tx_id",
    event_time="ts",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(click_id=gn.Integer(), ts=gn.Timestamp("ms"), user=gn.String(nullable=True), event=gn.String()),
    id="click_id",
    event_time="ts",
)
card, visitor = payments.by("card_id"), clicks.by("user")
small = gn.step("small", where=col("amount") < 5)
large = gn.step("large", where=col("amount") > 20 * small.last("amount"))
failed = gn.step("failed", where=col("event") == "login_failed")
reset = gn.step("reset", where=col("event") == "password_reset")
logout = col("event") == "logout"

Define = Callable[[], object]
PLACE = "pattern of payments by card_id"


def pattern(*parts: object, **changed: object) -> Define:
    arguments = {"within": "1m", **changed}
    return lambda: card.pattern(gn.seq(*parts), **arguments)  # type: ignore[arg-type]


WRONG: dict[str, tuple[Define, str, str]] = {
    "a step without a name": (lambda: gn.step(""), "step('')", "letters, digits and '_'"),
    "a step called previous": (lambda: gn.step("previous"), "step('previous')", "such as step('failed'"),
    "a condition as text": (lambda: gn.step("a", where="amount < 5"), "step 'a': where=", "col('event') == 'login'"),
    "no times at all": (lambda: small.times(0), "<step small>: times(0, 0)", "above 0"),
    "half a time": (lambda: small.times(1.5), "times(1.5, 1.5)", "times(3)"),
    "times the wrong way round": (lambda: small.times(3, 2), "times(3, 2)", "swap them"),
    "one alternative": (lambda: gn.any_of(small), "any_of", "at least two"),
    "an alternative that repeats": (
        lambda: gn.any_of(small.times(2), large),
        "any_of: <step small 2 times>",
        "of the whole",
    ),
    "an alternative that is no step": (lambda: gn.any_of(small, "large"), "any_of: 'large'", "gillnet.step"),
    "a column of any of two": (lambda: gn.any_of(small, large).last("amount"), "last('amount')", "small, large"),
    "a column that is a number": (lambda: small.first(3), "first(3)", "such as first('amount')"),
    "an expression as previous": (lambda: gn.previous(col("ts")), "previous(", "such as previous('amount')"),
    "no steps": (pattern(), "seq: it has no step", "at least one"),
    "a condition as a step": (pattern(col("amount") < 5), "seq: <Expr", "gillnet.step"),
    "two steps of one name": (pattern(small, small), "two steps are called 'small'", "step.times(2)"),
    "an optional end": (pattern(small, large.optional()), "<step large (optional)>", "Leave out .optional()"),
    "a greedy end": (pattern(small, large.one_or_more().greedy()), "is greedy", "Leave out .greedy()"),
    "a negation in front": (
        pattern(gn.not_between(col("amount") > 5), small),
        "not_between stands between",
        "not_within",
    ),
    "a negation at the end": (pattern(small, gn.not_between(col("amount") > 5)), "not_between stands between", "'10m'"),
    "not within in the middle": (
        pattern(small, gn.not_within(col("amount") > 5, "1m"), large),
        "at the end",
        "not_between",
    ),
    "a negation as text": (lambda: gn.not_between("logout"), "not_between('logout')", "col('event') == 'logout'"),
    "not within no time": (pattern(small, gn.not_within(col("amount") > 5, "0s")), f"{PLACE}: not_within", "above 0"),
    "within no time": (pattern(small, within="0s"), f"{PLACE}: within: '0s'", "such as '15m'"),
    "within words": (pattern(small, within="soon"), f"{PLACE}: within: 'soon'", "such as '5m'"),
    "over no time": (pattern(small, over="0s"), f"{PLACE}: over: '0s'", "such as '15m'"),
    "an unknown skip": (pattern(small, skip="to_last"), "skip='to_last'", "there are no_skip"),
    "a step instead of a sequence": (lambda: card.pattern(small, within="1m"), "is one step", "gillnet.seq(small)"),
    "a list of steps": (lambda: card.pattern([small, large], within="1m"), "is not a sequence", "gillnet.seq(first"),
    "an unknown column": (pattern(gn.step("a", where=col("amuont") < 5)), f"{PLACE}: step 'a': ", "col('amount')"),
    "an unknown column of a step": (
        pattern(small, gn.step("b", where=col("amount") > small.last("amuont"))),
        "step 'b': small.last(\"amuont\"): there is no column 'amuont'",
        "did you mean 'amount'",
    ),
    "an unknown column of the event before": (
        pattern(small, gn.step("b", where=col("amount") > gn.previous("amuont"))),
        "step 'b': previous(\"amuont\")",
        "did you mean 'amount'",
    ),
    "a step that comes later": (
        pattern(large, small),
        "step 'large': small.last(\"amount\") reads step 'small'",
        "the steps up to here are large",
    ),
    "a condition that is no bool": (pattern(gn.step("a", where=col("amount") * 2)), "step 'a': ", "compare it"),
    "a negation that is no bool": (
        pattern(small, gn.not_between(small.last("amount")), large),
        'not_between: small.last("amount") is decimal(2)',
        "compare it",
    ),
    "another stream's, of nobody": (
        lambda: gn.Features(payments, x=visitor.pattern(gn.seq(failed), within="1m")),
        "feature 'x': it is of stream 'clicks'",
        ".at(column)",
    ),
    "its own stream's, looked up": (
        lambda: gn.Features(payments, x=card.pattern(gn.seq(small), within="1m").at("card_id")),
        "feature 'x': at('card_id') reads another stream",
        "'payments' itself",
    ),
    "looked up at a number": (
        lambda: visitor.pattern(gn.seq(failed), within="1m").at(3),
        "at(3)",
        "such as .at('user_id')",
    ),
    "a sequence as a feature": (
        lambda: gn.Features(payments, x=gn.seq(small)),
        "feature 'x': <sequence small>",
        "give an",
    ),
    "no partial matches": (
        lambda: gn.Pipeline(gn.Features(payments, n=card.count(over="1m")), max_partial_matches=0),
        "max_partial_matches=0",
        "above 0",
    ),
}


@pytest.mark.parametrize(("define", "place", "mend"), WRONG.values(), ids=WRONG)
def test_a_wrong_pattern_is_refused_with_its_place_and_mend(define: Define, place: str, mend: str) -> None:
    with pytest.raises(DefinitionError) as error:
        define()
    message = str(error.value)
    assert place in message
    assert mend in message
    assert message.endswith((".", ".)")), "a message is a whole sentence"


RIGHT: dict[str, gn.Pattern] = {
    "an earlier value": card.pattern(gn.seq(small, large), within="1m"),
    "everything at once": card.pattern(
        gn.seq(
            small.times(2, 3).greedy(), gn.not_between(col("amount") == 7), gn.step("any").optional(), large.strict()
        ),
        within="1m",
        over="1d",
        skip="no_skip",
    ).count(),
    "looked up, with a time after it": visitor.pattern(
        gn.seq(gn.any_of(failed, reset), gn.not_within(logout, "5m")), within="1m", skip="to_next"
    ).at("card_id"),
    "of a whole stream": clicks.all().pattern(gn.seq(failed), within="1m").at("tx_id"),
}


@pytest.mark.parametrize("feature", RIGHT.values(), ids=RIGHT)
def test_a_pattern_that_is_let_through_can_run_and_be_written_and_read(feature: gn.Pattern) -> None:
    plan = gn.Pipeline(gn.Features(payments, x=feature)).plan
    assert loads(dumps(plan)) == plan
    assert str(FeatureOperator(plan).row_schema().field("x").type) == {"bool": "bool", "int64": "int64"}[feature.type]
