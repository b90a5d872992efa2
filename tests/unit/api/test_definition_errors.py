"""Wrong aggregates, features, sessions, models and policies are refused at definition time, with place and mend.

Nothing here reaches a runtime: a definition that this lets through must run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

import gillnet as gn
from gillnet import col
from gillnet.core.errors import DefinitionError
from gillnet.operators.features import FeatureOperator

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        tx_id=gn.String(),
        ts=gn.Timestamp("ms"),
        card_id=gn.String(),
        user_id=gn.String(nullable=True),
        merchant=gn.Integer(),
        amount=gn.Decimal(2),
        status=gn.String(),
    ),
    id="tx_id",
    event_time="ts",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(click_id=gn.String(), ts=gn.Timestamp("ms"), visitor=gn.String()),
    id="click_id",
    event_time="ts",
)
other_payments = gn.Stream("payments", schema=clicks.schema, id="click_id", event_time="ts")
decided = gn.Stream(
    "decided",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp(), decision=gn.String(), score=gn.Float(), revision=gn.Integer()),
    id="id",
    event_time="ts",
)
scored = gn.Stream(
    "scored",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp(), score=gn.Float(), revision=gn.Integer()),
    id="id",
    event_time="ts",
)
card, visitor = payments.by("card_id"), clicks.by("visitor")
n = card.count(over="1h")
good = gn.Features(payments, spend=card.sum("amount", over="5m"), n=n, last_status=card.last("status", over="5m"))

Define = Callable[[], object]


def count(**changed: object) -> Define:
    arguments = {"over": "5m", **changed}
    return lambda: card.count(**arguments)  # type: ignore[arg-type]


def features(**named: object) -> Define:
    return lambda: gn.Features(payments, **named)  # type: ignore[arg-type]


def sessions(**named: object) -> Define:
    arguments = {"gap": "5m", **named}
    return lambda: gn.Sessions(card, **arguments)  # type: ignore[arg-type]


def pipeline(**changed: object) -> Define:
    return lambda: gn.Pipeline(good, **changed)  # type: ignore[arg-type]


def rules(*policy: object) -> Define:
    return pipeline(policy=list(policy))


SUM = "sum of payments by card_id"
COUNT = "count of payments by card_id"

WRONG_AGGREGATES: dict[str, tuple[Define, str, str]] = {
    "an unknown column": (lambda: card.sum("amuont", over="5m"), f"{SUM}: ", "Did you mean col('amount')?"),
    "a sum of text": (lambda: card.sum("status", over="5m"), f'{SUM}: col("status") is string', "takes int64, float64"),
    "a minimum of text": (lambda: card.min("status", over="5m"), "min of payments", "Choose another column"),
    "a mean of times": (lambda: card.mean("ts", over="5m"), 'col("ts") is timestamp', "mean takes int64"),
    "a spread of text": (lambda: card.std("card_id", over="5m"), "std of payments", "convert it with .cast"),
    "no input": (lambda: card.sum(None, over="5m"), f"{SUM}: None", "such as sum('amount')"),
    "a number as input": (lambda: card.sum(3, over="5m"), f"{SUM}: 3", "such as sum('amount')"),
    "an aggregate as input": (lambda: card.sum(n, over="5m"), "is an aggregate", "over the stream's columns"),
    "a wrong expression as input": (lambda: card.sum(col("status") * 2, over="5m"), f"{SUM}: in ", "cast argument 1"),
    "null as input": (lambda: card.last(gn.lit(None), over="5m"), "last of payments", "takes int64"),
    "an aggregation that was not called": (
        lambda: card.aggregate(gn.count, over="5m"),
        "the function count",
        "call one",
    ),
    "an aggregation by its name": (lambda: card.aggregate("sum", over="5m"), "by card_id: 'sum'", "gillnet.count()"),
    "a window of nothing": (count(over="0s"), f"{COUNT}: over: '0s'", "above 0"),
    "a timedelta of nothing": (count(over=timedelta(0)), f"{COUNT}: over: '0:00:00'", "above 0"),
    "a negative window": (count(over="-5m"), f"{COUNT}: over: '-5m' is negative", "0 or more"),
    "a list as input": (lambda: card.sum(["amount"], over="5m"), f"{SUM}: ['amount']", "such as sum('amount')"),
    "a window as a list": (count(over=["5m"]), "over: ['5m']", "such as '5m'"),
    "a condition as a list": (count(where=[col("amount") > 1]), f"{COUNT}: where=[", "is not an expression"),
    "a lookup at a list": (lambda: visitor.count(over="5m").at(["user_id"]), "at(['user_id'])", ".at('user_id')"),
    "a window in words": (count(over="5 minutes"), "over: '5 minutes'", "'1h30m'"),
    "a window as a number": (count(over=300), "over: 300", "such as '5m'"),
    "a window of a life": (count(over="4000d"), "over: '4000d'", "shorter duration"),
    "a tumbling window of nothing": (lambda: gn.tumbling("0s"), "tumbling(): '0s'", "above 0"),
    "a negative sliding window": (lambda: gn.sliding("-1s"), "sliding(): '-1s'", "0 or more"),
    "a session without a gap": (lambda: gn.session("0s"), "session(): gap: '0s'", "above 0"),
    "a session without a length": (lambda: gn.session("5m", max_length="0s"), "max_length: '0s'", "above 0"),
    "a negative delay": (count(delay="-1s"), f"{COUNT}: delay: '-1s'", "0 or more"),
    "a delay as a number": (count(delay=3), f"{COUNT}: delay: 3", "such as '5m'"),
    "a condition as text": (count(where="status == 'declined'"), f"{COUNT}: where=", "col('status') == 'declined'"),
    "a condition that is True": (count(where=True), f"{COUNT}: where=True", "is not an expression"),
    "a condition that is no bool": (count(where=col("amount")), 'where=col("amount") is decimal(2)', "compare it"),
    "a condition on an unknown column": (count(where=col("state") == "x"), f"{COUNT}: where: ", "col('status')"),
    "a condition of two types": (count(where=col("amount") == "x"), "where: in col(", "value of the same type"),
    "a look-back over a calendar": (
        lambda: card.seconds_since_last(over=gn.tumbling("1d")),
        "seconds_since_last of payments",
        "such as '30d'",
    ),
    "a lookup at a number": (lambda: visitor.count(over="5m").at(3), "clicks by visitor>: at(3)", ".at('user_id')"),
}

WRONG_FEATURES: dict[str, tuple[Define, str, str]] = {
    "none": (features(), "Features of 'payments'", "at least one"),
    "of a stream's name": (lambda: gn.Features("payments", n=n), "'payments' is not a stream", "give one first"),
    "of an entity": (lambda: gn.Features(card, n=n), "<payments by card_id> is not a stream", "give its stream"),
    "a column's name": (features(amount=n), "feature 'amount'", "choose another"),
    "a name that rows carry": (features(score=n), "feature 'score'", "choose another"),
    "a reserved name": (features(__n=n), "feature '__n'", "choose another"),
    "a name with a space": (features(**{"a b": n}), "feature 'a b'", "letters, digits and '_'"),
    "no name": (features(**{"": n}), "feature ''", "letters, digits and '_'"),
    "a column that the policy decides": (
        lambda: gn.Features(decided, n=decided.by("id").count(over="1h")),
        "Features of 'decided': its column 'decision'",
        "rename it at its source",
    ),
    "a column's name as a feature": (features(x="amount"), "feature 'x': 'amount'", "col('amount')"),
    "a number": (features(x=3), "feature 'x': 3", "lit(3)"),
    "an aggregation without a window": (features(x=gn.count()), "feature 'x': <count>", "card.count(over='1h')"),
    "a function": (features(x=gn.count), "feature 'x': the function count", "card.count(over='1h')"),
    "an entity": (features(x=card), "feature 'x': <payments by card_id>", "card.count(over='1h')"),
    "a list": (features(x=[n]), "feature 'x': [<count", "give an aggregate"),
    "None": (features(x=None), "feature 'x': None", "give an aggregate"),
    "an unknown column": (features(x=col("amuont") * 2), "feature 'x'", "did you mean 'amount'?"),
    "an unknown feature": (
        features(payments_1h=n, x=col("payments_2h") / 2),
        "feature 'x'",
        "did you mean 'payments_1h'?",
    ),
    "types that do not fit": (features(x=col("status") + 1), "feature 'x': in col(", "concat_str"),
    "a case without a condition": (features(x=gn.when(col("amount")).then(1)), "feature 'x': in when(", "compare it"),
    "itself": (features(x=col("x") + 1), "x needs x", "Break the circle"),
    "a circle of two": (features(a=col("b"), b=col("a")), "a needs b needs a", "Break the circle"),
    "a circle of three": (features(a=col("b"), b=col("c") + 1, c=col("a")), "needs c needs a", "Break the circle"),
    "another stream without at": (
        features(x=visitor.count(over="5m")),
        "of stream 'clicks'",
        ".at(column): the string",
    ),
    "another stream's whole without at": (
        features(x=clicks.all().count(over="5m")),
        "of 'payments'",
        "such as 'tx_id'",
    ),
    "at an unknown column": (features(x=visitor.count(over="5m").at("user")), "at('user')", "did you mean 'user_id'?"),
    "a whole at an unknown column": (features(x=clicks.all().count(over="5m").at("x")), "at('x')", "there are amount"),
    "at a column of another type": (
        features(x=visitor.count(over="5m").at("merchant")),
        "at('merchant') is int64, and the key 'visitor' of 'clicks' is string",
        "tx_id, card_id, user_id, status",
    ),
    "at its own stream": (features(x=card.count(over="5m").at("card_id")), "at('card_id')", "is 'payments' itself"),
    "two streams of one name": (features(x=other_payments.by("visitor").count(over="1h")), "feature 'x'", "rename one"),
    "a baseline without sessions": (features(n=n, x=gn.baseline("n")), "feature 'x'", "gillnet.Sessions"),
}

WRONG_SESSIONS: dict[str, tuple[Define, str, str]] = {
    "without a key": (lambda: gn.Sessions(payments.all(), gap="5m", n=gn.count()), "no key", ".by(column)"),
    "of a stream": (lambda: gn.Sessions(payments, gap="5m", n=gn.count()), "<stream payments", ".by(column)"),
    "keyed by what sessions carry": (
        lambda: gn.Sessions(scored.by("revision"), gap="5m", n=gn.count()),
        "sessions of scored by revision",
        "key by another column",
    ),
    "without a gap": (sessions(gap="0s", n=gn.count()), "sessions of payments by card_id: gap: '0s'", "above 0"),
    "a gap in words": (sessions(gap="soon", n=gn.count()), "by card_id: gap: 'soon'", "such as '5m'"),
    "without a length": (sessions(max_length="0s", n=gn.count()), "max_length: '0s'", "above 0"),
    "without features": (sessions(), "Features of 'payments'", "at least one"),
    "a sum of text": (sessions(n=gn.sum("status")), SUM, "takes int64"),
    "an unknown column": (sessions(n=gn.sum("amuont")), SUM, "Did you mean col('amount')?"),
    "an aggregation that was not called": (
        sessions(n=gn.count),
        "feature 'n': the function count",
        "give an aggregate",
    ),
    "a look-back over the session": (sessions(n=gn.seconds_since_last()), "seconds_since_last", "such as '30d'"),
    "a name that sessions carry": (sessions(session_end=gn.count()), "feature 'session_end'", "choose another"),
    "a baseline of nothing known": (sessions(n=gn.count(), b=gn.baseline("m")), "feature 'b'", "there are amount"),
    "a baseline of an expression": (sessions(n=gn.count(), b=gn.baseline(col("n"))), "feature 'b'", "such as 'clicks'"),
    "a baseline of text": (sessions(n=gn.last("status"), b=gn.baseline("n")), "'n' is string", "that is a number"),
    "a baseline of a column": (
        sessions(n=gn.count(), b=gn.baseline("amount")),
        "do not have 'amount'",
        "give one of n",
    ),
    "a baseline of more than the session": (
        sessions(n=gn.count(), pay=col("amount") * col("n"), b=gn.baseline("pay")),
        "feature 'b': baseline: closed sessions do not have 'pay'",
        "give one of n",
    ),
    "a baseline of a lookup": (
        sessions(n=gn.count(), m=visitor.count(over="1h").at("user_id"), b=gn.baseline("m")),
        "do not have 'm'",
        "give one of n",
    ),
    "a baseline of a baseline": (
        sessions(n=gn.count(), b=gn.baseline("n"), c=gn.baseline("b")),
        "feature 'c': baseline: closed sessions do not have 'b'",
        "give one of n",
    ),
    "a quantile of 1": (sessions(n=gn.count(), b=gn.baseline("n", quantile=1)), "quantile=1", "0.99"),
    "a quantile as text": (sessions(n=gn.count(), b=gn.baseline("n", quantile="0.5")), "quantile='0.5'", "0.99"),
    "a step longer than the whole": (
        sessions(n=gn.count(), b=gn.baseline("n", step="2d")),
        "step='2d'",
        "at most over",
    ),
    "a count that is True": (sessions(n=gn.count(), b=gn.baseline("n", min_count=True)), "min_count=True", "0 or more"),
    "a quantile as a list": (sessions(n=gn.count(), b=gn.baseline("n", quantile=[0.5])), "quantile=[0.5]", "0.99"),
    "a list as a baseline": (sessions(n=gn.count(), b=gn.baseline(["n"])), "baseline(['n'])", "such as 'clicks'"),
    "a negative count": (sessions(n=gn.count(), b=gn.baseline("n", min_count=-1)), "min_count=-1", "0 or more"),
}

WRONG_PIPELINES: dict[str, tuple[Define, str, str]] = {
    "of a stream": (lambda: gn.Pipeline(payments), "<stream payments", "gillnet.Features"),
    "of a dictionary": (lambda: gn.Pipeline({"n": n}), "Pipeline: {", "gillnet.Sessions"),
    "an empty name": (pipeline(name=" "), "Pipeline: name=' '", "leave it out"),
    "a name with a slash": (pipeline(name="a/b"), "Pipeline: name='a/b'", "'.', '_' and '-'"),
    "a name with a space": (pipeline(name="b c"), "Pipeline: name='b c'", "'.', '_' and '-'"),
    "a name with a line's end": (pipeline(name="payments\n"), "Pipeline: name='payments\\n'", "Give another"),
    "a name of other letters": (pipeline(name="été"), "Pipeline: name='été'", "a-z, A-Z, 0-9"),
    "a name that begins with a dot": (pipeline(name=".."), "Pipeline: name='..'", "begins with a letter or digit"),
    "a name that is no text": (pipeline(name=["payments"]), "Pipeline: name=['payments']", "Give another"),
    "more events than can be counted": (pipeline(max_events_per_key=2**63), "max_events_per_key=", "above 0"),
    "partial matches as a bool": (pipeline(max_partial_matches=True), "max_partial_matches=True", "above 0"),
    "revisions as text": (pipeline(revisions="no"), "Pipeline: revisions='no'", "True nor False"),
    "no revisions": (pipeline(revisions=None), "Pipeline: revisions=None", "leave it out"),
    "an emission that is a list": (pipeline(emission=["on_arrival"]), "emission=['on_arrival']", "'on_watermark'"),
    "a join instead of joins": (pipeline(joins="clicks"), "joins: 'clicks'", "gillnet.IntervalJoin("),
    "no events at all": (pipeline(max_events_per_key=0), "max_events_per_key=0", "above 0"),
    "part of an event": (pipeline(max_events_per_key=1.5), "max_events_per_key=1.5", "above 0"),
    "a model without a version": (pipeline(model="fraud"), "model='fraud'", "'fraud@champion'"),
    "a model without a name": (pipeline(model="@3"), "model='@3'", "'fraud@3'"),
    "a model with two versions": (pipeline(model="fraud@champion@3"), "model='fraud@champion@3'", "'fraud@3'"),
    "a model in capitals": (pipeline(model="Fraud Model@3"), "model='Fraud Model@3'", "of a-z, 0-9"),
    "a model that is no text": (pipeline(model=3), "model=3", "name@version"),
    "an unknown model feature": (pipeline(model="f@1", model_features=["spent"]), "'spent'", "did you mean 'spend'?"),
    "a model feature of text": (
        pipeline(model="f@1", model_features=["last_status"]),
        "'last_status' is string",
        "numbers",
    ),
    "a model feature twice": (pipeline(model="f@1", model_features=["n", "n"]), "'n' is there twice", "leave one out"),
    "model features as one text": (pipeline(model="f@1", model_features="spend"), "'spend' is one text", "['spend']"),
    "model features as a number": (pipeline(model="f@1", model_features=3), "model_features: 3", "['spend_5m']"),
    "model features as a set": (pipeline(model="f@1", model_features={"n"}), "model_features: {'n'}", "write one"),
    "a list as a model feature": (
        pipeline(model="f@1", model_features=[["n"]]),
        "model_features: there is no feature ['n']",
        "there are amount",
    ),
    "an expression as a model feature": (
        pipeline(model="f@1", model_features=[col("n")]),
        'model_features: there is no feature <Expr col("n")>',
        "there are amount",
    ),
    "a model of nothing": (pipeline(model="f@1", model_features=[]), "model='f@1'", "needs one that is a number"),
    "model features without a model": (pipeline(model_features=["n"]), "model_features without a model", "give model="),
    "a model where all is text": (
        lambda: gn.Pipeline(gn.Features(payments, s=card.last("status", over="5m")), model="f@1"),
        "model='f@1'",
        "needs one that is a number",
    ),
    "a model beside a column 'score'": (
        lambda: gn.Pipeline(gn.Features(scored, n=scored.by("id").count(over="1h")), model="f@1"),
        "stream 'scored' has a column 'score'",
        "rename it at its source",
    ),
    "a score without a model": (
        rules(gn.block(col("score") > 0.9)),
        "rule 1 of the policy (block)",
        "model='fraud@champion'",
    ),
    "an unknown column": (rules(gn.allow(col("n") > 1), gn.block(col("spent") > 1)), "rule 2 of", "col('spend')"),
    "a rule that is no bool": (rules(gn.review(col("spend"))), '(review): col("spend") is decimal(2)', "compare it"),
    "a rule of two types": (rules(gn.block(col("last_status") > 3)), "rule 1 of the policy", "value of the same type"),
    "a rule as text": (rules(gn.block("spend > 3")), "(block): 'spend > 3'", "col('score') > 0.97"),
    "a rule that is True": (rules(gn.block(True)), "(block): True", "col('score') > 0.97"),
    "a condition without an action": (rules(col("spend") > 1), "rule 1 of the policy: <Expr", "gillnet.block"),
    "a list as an action": (rules(gn.Rule(["block"], col("n") > 1)), "(['block'])", "there are allow, block"),
    "an unknown action": (rules(gn.Rule("blok", col("spend") > 1)), "'blok' is unknown", "did you mean 'block'?"),
    "an empty reason": (rules(gn.block(col("spend") > 1, reason="")), "(block): reason=''", "leave it out"),
    "a reason that is a number": (rules(gn.block(col("spend") > 1, reason=3)), "(block): reason=3", "write a text"),
    "a rule instead of rules": (pipeline(policy=gn.block(col("spend") > 1)), "policy: Rule(", "[gillnet.block("),
    "rules by action": (pipeline(policy={"block": col("spend") > 1}), "policy: {", "[gillnet.block("),
    "no rules": (pipeline(policy=None), "policy: None", "[gillnet.block("),
}


@pytest.mark.parametrize(
    ("define", "place", "mend"),
    [
        pytest.param(*wrong, id=f"{what}: {name}")
        for what, table in [
            ("aggregate", WRONG_AGGREGATES),
            ("features", WRONG_FEATURES),
            ("sessions", WRONG_SESSIONS),
            ("pipeline", WRONG_PIPELINES),
        ]
        for name, wrong in table.items()
    ],
)
def test_a_wrong_definition_is_refused_with_its_place_and_mend(define: Define, place: str, mend: str) -> None:
    with pytest.raises(DefinitionError) as error:
        define()
    message = str(error.value)
    assert place in message
    assert mend in message
    assert message.endswith((".", ".)")), "a message is a whole sentence"


@pytest.mark.parametrize(
    "define",
    [
        features(n=n, half=col("n") / 2, doubled=col("half") * 4),
        features(late_first=col("n") > 3, n=n),
        features(x=clicks.all().count(over="5m").at("tx_id"), y=visitor.count(over="5m").at("user_id")),
        features(constant=gn.lit(1)),
        sessions(n=gn.count(), rate=col("n") / 2, b=gn.baseline("rate"), far=col("rate") > col("b")),
        sessions(n=gn.count(), recent=card.count(over="1m"), b=gn.baseline("recent", min_count=0)),
        lambda: gn.Features(scored, n=scored.by("id").count(over="1h"), high=col("score") > 0.5),
        lambda: gn.Features(payments, n=payments.by("merchant").count(over=gn.session("5m", max_length="1m"))),
    ],
)
def test_a_definition_that_is_let_through_can_run(define: Callable[[], gn.Features]) -> None:
    plan = gn.Pipeline(define()).plan
    assert set(FeatureOperator(plan).row_schema().names) > {feature.name for feature in plan.features}


@pytest.mark.parametrize("name", ["payments", "payments-eu", "payments_2", "2fa", "eu.payments.v2"])
def test_a_name_that_a_group_and_a_transaction_can_have_is_taken(name: str) -> None:
    assert gn.Pipeline(good, name=name).plan.name == name


@pytest.mark.parametrize("chosen", [["n"], ("n", "spend")])
def test_model_features_may_be_any_sequence_of_names(chosen: Sequence[str]) -> None:
    model = gn.Pipeline(good, model="f@1", model_features=chosen).plan.model
    assert model is not None
    assert [name for name, _ in model.features] == list(chosen)
