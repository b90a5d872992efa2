"""What a simulation is asked for, checked before anything is generated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from gillnet.core.errors import DefinitionError
from gillnet.core.time import DAY, HOUR, MILLISECOND, MINUTE, duration_us

_WINDOW_ROWS = 16_384
_EARLIEST_US, _LATEST_US = 10**15, 10**16 - 1  # 2001 to 2286: a millisecond timestamp has 13 digits

Duration = str | timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """The population, its traffic, its villains, and the faults of the road.

    Attributes
    ----------
    seed
        Everything follows from it: the same configuration gives the same bytes (for one version of Gillnet and NumPy).
    start_us, duration
        The span of event time: microseconds UTC, whole milliseconds; by default seven days from Monday, 2026-01-05.
    cards, merchants
        Size of the population; there are three users to four cards. 64 merchants at least.
    payments_per_day
        Mean number of payments, fraud included; it follows the hour and the weekday of each customer's own country.
    sessions_per_day
        Mean number of browsing sessions that lead to no payment. Most online payments bring a session of their own as
        well.
    bots_per_day
        Mean number of bot runs, each of tens to hundreds of clicks.
    card_skew, merchant_skew
        Zipf exponents of how payments spread over cards and merchants.
    fraud_rate
        Share of payments that are fraud.
    difficulty
        0: loud fraud; 1: stealthy fraud, which spreads itself thin and resembles its victim.
    bot_difficulty
        0: plain script with fixed gaps; 1: jittered gaps; 2: gaps and paths replayed from people. 0.5 mixes levels 0
        and 1 evenly.
    late_share
        Share of records that arrive late, by minutes up to 24 hours.
    duplicate_share
        Share of records that arrive once more, with the same bytes.
    malformed_share
        Malformed records that are put in, as a share of the records. They are additional: none replaces a good record.
    disorder_s
        Each record arrives up to this many seconds after its event time, so neighbours change places.
    drift_at
        When, after the start, fraud changes its mix, its amounts and its manners, and customers their spending. None:
        never.
    drift_strength
        How far it goes: 0 not at all, 1 clearly.
    label_delay
        Median time from a fraudulent payment to its chargeback.
    label_maturity
        Time after which a payment without chargeback counts as legitimate.

    Raises
    ------
    DefinitionError
        If a value is outside its range; the message names the field.
    """

    seed: int = 7
    start_us: int = 1_767_571_200_000_000
    duration: Duration = "7d"
    cards: int = 20_000
    merchants: int = 2_000
    payments_per_day: int = 50_000
    sessions_per_day: int = 10_000
    bots_per_day: int = 100
    card_skew: float = 0.6
    merchant_skew: float = 1.0
    fraud_rate: float = 0.007
    difficulty: float = 0.5
    bot_difficulty: float = 1.0
    late_share: float = 0.0
    duplicate_share: float = 0.0
    malformed_share: float = 0.0
    disorder_s: float = 0.0
    drift_at: Duration | None = None
    drift_strength: float = 1.0
    label_delay: Duration = "5d"
    label_maturity: Duration = "30d"

    def __post_init__(self) -> None:
        for field, (low, high) in _WHOLE_NUMBERS.items():
            _check_range(field, getattr(self, field), low, high, whole=True)
        for field, (low_share, high_share) in _NUMBERS.items():
            _check_range(field, getattr(self, field), low_share, high_share, whole=False)
        if self.start_us % MILLISECOND:
            raise DefinitionError(
                f"SimulationConfig.start_us: {self.start_us} is no whole millisecond; make it a multiple of 1000."
            )
        for field in ("duration", "label_delay", "label_maturity"):
            if duration_us(getattr(self, field), what=f"SimulationConfig.{field}") < MILLISECOND:
                raise DefinitionError(f"SimulationConfig.{field}: give at least a millisecond, such as '1d'.")
        if self.end_us > _LATEST_US:
            raise DefinitionError(
                "SimulationConfig.duration: the simulation would end after the year 2286; shorten it."
            )
        if self.drift_at is not None:
            duration_us(self.drift_at, what="SimulationConfig.drift_at")

    @property
    def end_us(self) -> int:
        """The end of event time, exclusive, in microseconds UTC."""
        return self.start_us + duration_us(self.duration, what="SimulationConfig.duration")

    @property
    def drift_start_us(self) -> int | None:
        """The event time at which drift begins."""
        if self.drift_at is None:
            return None
        return self.start_us + duration_us(self.drift_at, what="SimulationConfig.drift_at")

    @property
    def users(self) -> int:
        """The number of card holders."""
        return max(1, self.cards * 3 // 4)

    @property
    def window_us(self) -> int:
        """The span that is generated at a time: what holds some 16,000 payments, between a minute and six hours.

        Memory is bounded by it; as it depends on the configuration alone, the bytes do not depend on how they are read.
        """
        busiest = max(1, self.payments_per_day, self.sessions_per_day)
        return max(MINUTE, min(6 * HOUR, DAY * _WINDOW_ROWS // busiest // MINUTE * MINUTE))


_WHOLE_NUMBERS = {
    "seed": (0, 2**63 - 1),
    "start_us": (_EARLIEST_US, _LATEST_US),
    "cards": (10, 50_000_000),
    "merchants": (64, 999_999),
    "payments_per_day": (0, 1_000_000_000),
    "sessions_per_day": (0, 1_000_000_000),
    "bots_per_day": (0, 1_000_000),
}

_NUMBERS = {
    "card_skew": (0.0, 3.0),
    "merchant_skew": (0.0, 3.0),
    "fraud_rate": (0.0, 0.5),
    "difficulty": (0.0, 1.0),
    "bot_difficulty": (0.0, 2.0),
    "late_share": (0.0, 1.0),
    "duplicate_share": (0.0, 1.0),
    "malformed_share": (0.0, 1.0),
    "disorder_s": (0.0, 3_600.0),
    "drift_strength": (0.0, 2.0),
}


def _check_range(field: str, value: object, low: float, high: float, *, whole: bool) -> None:
    kinds = int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise DefinitionError(f"SimulationConfig.{field}: {value!r} must be {kind} from {low} to {high}.")
