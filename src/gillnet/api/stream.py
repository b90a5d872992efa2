"""Streams and their entities: where a definition starts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from gillnet.api.aggregates import Aggregate, Aggregation, WindowSpec, bind
from gillnet.api.aggregates import functions as fn
from gillnet.api.as_of import AsOf, present_in_all
from gillnet.api.expressions import Expr
from gillnet.api.patterns import Pattern, Sequence, bind_pattern
from gillnet.core.errors import DefinitionError
from gillnet.core.naming import nearest
from gillnet.core.schema import Integer, Schema, String, Timestamp
from gillnet.core.time import duration_us
from gillnet.plan.nodes import StreamNode
from gillnet.plan.patterns import SkipStrategy

Duration = str | timedelta

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Stream:
    """A stream of records with a schema, an id and an event time.

    Parameters
    ----------
    name
        The stream's name; side outputs are called ``<name>.malformed``, ``<name>.late`` and ``<name>.too_late``.
    schema
        The typed columns. A record that does not fit goes to ``<name>.malformed`` with a reason.
    id
        The column that identifies a record (String or Integer, not nullable). A second record with the id is a
        duplicate.
    event_time
        The column that says when it happened (Timestamp, not nullable).
    watermark_delay
        How far the watermark trails the newest event time of each partition.
    allowed_lateness
        How far behind the watermark an event is still scored; beyond, it goes to ``<name>.too_late``.
    idle_after
        Processing time after which a silent partition no longer holds the watermark back.
    earliest
        Event times before this instant are malformed.
    max_ahead
        Event times further ahead of their arrival than this are malformed, and do not push the watermark.

    Raises
    ------
    DefinitionError
        If a column does not exist or has the wrong type, or a duration makes no sense.

    Examples
    --------
    >>> import gillnet as gn
    >>> Payment = gn.Schema(tx_id=gn.String(), ts=gn.Timestamp("ms"), card_id=gn.String(), amount=gn.Decimal(2))
    >>> payments = gn.Stream("payments", schema=Payment, id="tx_id", event_time="ts")
    >>> payments.by("card_id").sum("amount", over="5m")
    <sum of amount over 5m of payments by card_id>
    """

    def __init__(
        self,
        name: str,
        *,
        schema: Schema,
        id: str,  # noqa: A002 - the field's word
        event_time: str,
        watermark_delay: Duration = "5s",
        allowed_lateness: Duration = "24h",
        idle_after: Duration = "30s",
        earliest: datetime = datetime(2000, 1, 1, tzinfo=UTC),
        max_ahead: Duration = "1h",
    ) -> None:
        place = f"Stream {name!r}"
        # It is part of topics' names, which know no other letters.
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DefinitionError(
                f"{place}: a stream's name is of a-z, A-Z, 0-9, '_' and '-', and begins with a letter or digit; "
                "choose another."
            )
        if not isinstance(schema, Schema):
            raise DefinitionError(
                f"{place}: schema={schema!r} is not a schema; write one such as gillnet.Schema(id=gillnet.String(), …)."
            )
        _check_role(place, schema, id, "id", (String, Integer), "String or Integer")
        _check_role(place, schema, event_time, "event_time", (Timestamp,), "Timestamp")
        if not isinstance(earliest, datetime):
            raise DefinitionError(
                f"{place}: earliest={earliest!r} is not a datetime; write one such as "
                "datetime(2020, 1, 1, tzinfo=datetime.UTC)."
            )
        if earliest.tzinfo is None:
            raise DefinitionError(f"{place}: earliest={earliest} has no time zone; add tzinfo=datetime.UTC.")
        self.name = name
        self.schema = schema
        self.node = StreamNode(
            name=name,
            schema=schema,
            id=id,
            event_time=event_time,
            watermark_delay_us=duration_us(watermark_delay, what=f"{place}: watermark_delay"),
            allowed_lateness_us=duration_us(allowed_lateness, what=f"{place}: allowed_lateness"),
            idle_after_us=duration_us(idle_after, what=f"{place}: idle_after"),
            earliest_us=int(earliest.timestamp() * 1_000_000),
            max_ahead_us=duration_us(max_ahead, what=f"{place}: max_ahead"),
        )

    def by(self, key: str) -> Entity:
        """Return the entity whose key is column ``key`` (String or Integer): a card, a user, a device, a merchant.

        Raises
        ------
        DefinitionError
            If the column does not exist or cannot be a key.
        """
        place = f"Stream {self.name!r}: by({key!r})"
        if not isinstance(key, str):
            raise DefinitionError(f"{place}: a key is the name of one column{nearest(key, self.schema)}.")
        if key not in self.schema:
            raise DefinitionError(f"{place}: there is no such column{nearest(key, self.schema)}.")
        if not isinstance(self.schema[key], String | Integer):
            raise DefinitionError(
                f"{place}: a key is a String or an Integer, and {key!r} is {self.schema[key].name}; "
                "choose a column that names the entity."
            )
        return Entity(self, key)

    def all(self) -> Entity:
        """Return the whole stream as one entity, for figures of the population."""
        return Entity(self, None)

    def __repr__(self) -> str:
        return f"<stream {self.name}: {', '.join(self.schema)}>"


def _check_role(place: str, schema: Schema, column: str, role: str, types: tuple[type, ...], words: str) -> None:
    if column not in schema:
        raise DefinitionError(f"{place}: {role}={column!r} is not a column{nearest(column, schema)}.")
    if not isinstance(schema[column], types):
        raise DefinitionError(f"{place}: {role}={column!r} is {schema[column].name}; it must be a {words}.")
    if schema[column].nullable:
        raise DefinitionError(f"{place}: {role}={column!r} is nullable; declare it without nullable=True.")


class Entity:
    """The events of a stream that share a key: windows and aggregates stand on it.

    ``over`` is a duration (a sliding window that ends at, and includes, the event), or `gillnet.sliding`,
    `gillnet.tumbling` or `gillnet.session`. ``where`` keeps the events for which a boolean expression is true.
    ``delay`` makes the window end that long before the event.
    """

    def __init__(self, stream: Stream, key: str | None) -> None:
        self.stream = stream
        self.key = key

    def __repr__(self) -> str:
        return f"<{self.stream.name} by {self.key or 'nothing'}>"

    def aggregate(
        self, aggregation: Aggregation, *, over: str | timedelta | WindowSpec, delay: Duration = "0s"
    ) -> Aggregate:
        """Put an aggregation such as ``gillnet.sum("amount")`` over a window of this entity."""
        return bind(self.stream.node, self.key, aggregation, over, delay)

    def count(self, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s") -> Aggregate:
        """Return the number of events."""
        return self.aggregate(fn.count(where=where), over=over, delay=delay)

    def sum(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the sum of a number: exact, for floats rounded once at the end; 0 of none."""
        return self.aggregate(fn.sum(value, where=where), over=over, delay=delay)

    def mean(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the mean of a number, rounded once; null of none."""
        return self.aggregate(fn.mean(value, where=where), over=over, delay=delay)

    def min(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the least value; null of none."""
        return self.aggregate(fn.min(value, where=where), over=over, delay=delay)

    def max(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the greatest value; null of none."""
        return self.aggregate(fn.max(value, where=where), over=over, delay=delay)

    def variance(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the sample variance (n - 1), exact and rounded once; null of fewer than two."""
        return self.aggregate(fn.variance(value, where=where), over=over, delay=delay)

    def std(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the sample standard deviation; null of fewer than two."""
        return self.aggregate(fn.std(value, where=where), over=over, delay=delay)

    def n_unique(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the number of different values, exact; nulls do not count."""
        return self.aggregate(fn.n_unique(value, where=where), over=over, delay=delay)

    def first(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the value of the oldest event in the window that has one."""
        return self.aggregate(fn.first(value, where=where), over=over, delay=delay)

    def last(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the value of the newest event in the window that has one: without delay, the event itself."""
        return self.aggregate(fn.last(value, where=where), over=over, delay=delay)

    def as_of(self, *, within: Duration, where: Expr | None = None, **columns: str | Expr) -> AsOf:
        """Return columns of the key's latest event at or before another stream's event: an as-of join.

        Parameters
        ----------
        within
            The event lies in (t - within, t] of the reading's time t; at the same time, the one with the last id counts.
        where
            Keep the events for which this is true.
        **columns
            Feature name to column or expression of this stream. All are of one event: the latest that has them all.

        Returns
        -------
        AsOf
            Give it ``.at(column)``, and unpack that into `Features`. A feature is null where there is no such event.

        Examples
        --------
        >>> import gillnet as gn
        >>> Click = gn.Schema(click_id=gn.String(), ts=gn.Timestamp(), user_id=gn.String(), url=gn.String())
        >>> clicks = gn.Stream("clicks", schema=Click, id="click_id", event_time="ts")
        >>> clicks.by("user_id").as_of(last_url="url", within="10m").at("user_id")
        {'last_url': <last of url over 10m of clicks by user_id, at user_id>}
        """
        what = f"as_of of {self.stream.name} by {self.key or 'nothing'}"
        condition = present_in_all(self.stream.node, what, columns, where)
        return AsOf({name: self.last(value, over=within, where=condition) for name, value in columns.items()})

    def entropy(
        self, value: str | Expr, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the Shannon entropy, in bits, of the values' frequencies; null of none."""
        return self.aggregate(fn.entropy(value, where=where), over=over, delay=delay)

    def seconds_since_last(
        self, *, over: Duration = "30d", where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the seconds since the key's previous event; null where there is none within ``over``."""
        return self.aggregate(fn.seconds_since_last(where=where), over=over, delay=delay)

    def mean_gap_seconds(
        self, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the mean gap between neighbouring events, in seconds; null of fewer than two."""
        return self.aggregate(fn.mean_gap_seconds(where=where), over=over, delay=delay)

    def std_gap_seconds(
        self, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the sample standard deviation of the gaps, in seconds; null of fewer than three events."""
        return self.aggregate(fn.std_gap_seconds(where=where), over=over, delay=delay)

    def modal_gap_share(
        self, *, over: Duration | WindowSpec, where: Expr | None = None, delay: Duration = "0s"
    ) -> Aggregate:
        """Return the share of gaps near the commonest one (bins of an eighth of an octave, and both neighbours)."""
        return self.aggregate(fn.modal_gap_share(where=where), over=over, delay=delay)

    def pattern(
        self,
        sequence: Sequence,
        *,
        within: Duration,
        over: Duration | None = None,
        skip: SkipStrategy = "past_last_event",
    ) -> Pattern:
        """Return whether a match of ``sequence`` was completed lately: see `gillnet.seq`, and `Pattern.count`.

        Parameters
        ----------
        sequence
            The steps, in the order of event time and id.
        within
            A match's last event lies less than this after its first.
        over
            Matches count that were completed in (t - over, t]; by default ``within``.
        skip
            ``"past_last_event"``: matches do not overlap, and of several the one that is complete first counts, of those
            the one that began first. ``"to_next"``: each event begins at most one match. ``"no_skip"``: where the last step
            can take more, each further event makes one more match.
        """
        return bind_pattern(self.stream.node, self.key, sequence, within=within, over=over, skip=skip)
