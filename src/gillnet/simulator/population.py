"""Who pays and where: card holders with homes, habits and devices, and Zipf-skewed merchants in their countries.

Built once from the seed, held as arrays. It knows nothing of time beyond lasting traits: which device, address or
country a user has at an instant is a pure function of (user, instant), so windows can be generated independently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gillnet.simulator.randomness import Floats, Integers, Mask, Purpose, draw, draw_table, generator, mix
from gillnet.simulator.schemas import Channel

if TYPE_CHECKING:
    from gillnet.simulator.config import SimulationConfig

DAY_MS = 86_400_000
ONE_OFF = 1 << 39
"""The bit that sets apart numbers that belong to no user: throw-away devices, cookies of a single visit."""


class Country(NamedTuple):
    """A country of the simulation. ``network`` is the first octet of its addresses."""

    code: str
    currency: str
    utc_offset_h: int
    customers: float
    network: int


COUNTRIES = (
    # The currencies are of similar worth, so that amounts may be added up without conversion.
    Country("US", "USD", -6, 30, 24),
    Country("GB", "GBP", 0, 14, 51),
    Country("DE", "EUR", 1, 13, 79),
    Country("FR", "EUR", 1, 11, 86),
    Country("ES", "EUR", 1, 7, 88),
    Country("IT", "EUR", 1, 7, 93),
    Country("NL", "EUR", 1, 4, 145),
    Country("IE", "EUR", 0, 2, 37),
    Country("CA", "CAD", -5, 5, 99),
    Country("AU", "AUD", 10, 4, 110),
    Country("CH", "CHF", 1, 2, 178),
    Country("SG", "SGD", 8, 1, 202),
)
DATA_CENTRE_NETWORK = 185


class Category(NamedTuple):
    """A line of trade. ``typical`` is the median amount; ``spread`` the standard deviation of its logarithm."""

    mcc: str
    channel: Channel
    typical: float
    spread: float
    merchants: float
    resale: bool = False
    small: bool = False


CATEGORIES = (
    Category("5411", Channel.POS, 34, 0.7, 14),  # groceries
    Category("5541", Channel.POS, 46, 0.4, 7),  # fuel
    Category("5812", Channel.POS, 31, 0.6, 12),  # restaurants
    Category("5814", Channel.POS, 10, 0.5, 9),  # fast food
    Category("5912", Channel.POS, 18, 0.7, 5),  # pharmacies
    Category("5651", Channel.POS, 58, 0.7, 7),  # clothing
    Category("5732", Channel.POS, 140, 0.9, 3, resale=True),  # electronics
    Category("5944", Channel.POS, 190, 0.9, 1.5, resale=True),  # jewellery
    Category("6011", Channel.ATM, 90, 0.6, 4),  # cash machines
    Category("5999", Channel.ONLINE, 39, 0.9, 10),  # marketplaces
    Category("5691", Channel.ONLINE, 62, 0.7, 6),  # fashion
    Category("5734", Channel.ONLINE, 150, 0.9, 4, resale=True),  # electronics and software
    Category("5947", Channel.ONLINE, 50, 0.6, 3, resale=True),  # gift cards
    Category("5816", Channel.ONLINE, 6, 0.8, 4, small=True),  # games
    Category("4814", Channel.ONLINE, 13, 0.5, 3, small=True),  # telephone credit
    Category("8398", Channel.ONLINE, 18, 0.9, 1.5, small=True),  # charities
    Category("4121", Channel.ONLINE, 14, 0.5, 3),  # rides
    Category("4899", Channel.ONLINE, 11, 0.3, 2, small=True),  # streaming
    Category("4511", Channel.ONLINE, 230, 0.6, 1.5),  # airlines
    Category("7011", Channel.ONLINE, 150, 0.6, 1.5),  # hotels
)

CATEGORY_CHANNEL = np.array([category.channel for category in CATEGORIES], dtype=np.uint8)
_COUNTRY_CUSTOMERS = np.array([country.customers for country in COUNTRIES])
_NETWORKS = np.array([country.network for country in COUNTRIES], dtype=np.int64)


class Population:
    """The cast of a simulation.

    Attributes
    ----------
    card_user, user_home
        Owner of each card; country index of each user.
    merchant_category, merchant_country, merchant_ip
        Line of trade, country and terminal address of each merchant.
    cards, online, resale, small, obscure
        Draw tables: cards by activity; online merchants; those with goods that resell well; those with small prices;
        unpopular merchants, where collusion settles.

    Notes
    -----
    Some 80 bytes a card and 60 a merchant.
    """

    def __init__(self, config: SimulationConfig) -> None:
        rng = generator(config.seed, Purpose.POPULATION)
        self.salt = int(rng.integers(0, 2**62))
        self._make_users(config, rng)
        self._make_merchants(config, rng)

    def _make_users(self, config: SimulationConfig, rng: np.random.Generator) -> None:
        users, cards = config.users, config.cards
        owners = np.concatenate([np.arange(users), rng.integers(0, users, cards - users)])
        self.card_user = rng.permutation(owners).astype(np.int32)
        shares = _COUNTRY_CUSTOMERS / _COUNTRY_CUSTOMERS.sum()
        self.user_home = rng.choice(len(COUNTRIES), users, p=shares).astype(np.uint8)
        # Some households share a computer, and all their members a line: a device with several cards proves nothing.
        members = np.arange(users)
        self._household = np.where(rng.random(users) < 0.45, members // 4 * 4, members)
        self.user_home = self.user_home[self._household]
        activity = zipf_weights(cards, config.card_skew, flat=20) * rng.lognormal(0.0, 0.6, cards)
        self.cards = draw_table(rng.permutation(activity), max(4 * cards, 1 << 16))
        self.card_level = rng.normal(0.0, 0.45, cards).astype(np.float32)
        self._shift_ms = rng.integers(0, 400 * DAY_MS, users)
        self._device_period_ms = _days(np.clip(rng.lognormal(np.log(320), 0.6, users), 60, 2_000))
        travels = rng.random(users) < 0.3
        self._trip_period_ms = _days(np.clip(rng.lognormal(np.log(60), 0.6, users), 20, 400))
        self._trip_length_ms = np.where(travels, _days(rng.uniform(1.5, 10.0, users)), 0)
        self.rhythm_ms = (rng.normal(0.0, 1.5, users) * 3_600_000).astype(np.int64)
        self.user_pace = rng.normal(np.log(9.0), 0.5, users).astype(np.float32)
        self.user_pace[rng.random(users) < 0.06] -= np.float32(2.2)  # power users: a click in less than a second

    def _make_merchants(self, config: SimulationConfig, rng: np.random.Generator) -> None:
        count = config.merchants
        category_share = np.array([category.merchants for category in CATEGORIES])
        category = rng.choice(len(CATEGORIES), count, p=category_share / category_share.sum())
        country = rng.choice(len(COUNTRIES), count, p=_COUNTRY_CUSTOMERS / _COUNTRY_CUSTOMERS.sum())
        # Every country has a shop, a cash machine and an online merchant at least, every trade a merchant.
        staples = np.array([0, 8, 9])
        fixed = min(count, 3 * len(COUNTRIES))
        country[:fixed] = np.arange(fixed) // 3
        category[:fixed] = staples[np.arange(fixed) % 3]
        category[fixed : fixed + len(CATEGORIES)] = np.arange(len(CATEGORIES))
        self.merchant_category = category.astype(np.uint8)
        self.merchant_country = country.astype(np.uint8)
        self.merchant_level = rng.normal(0.0, 0.35, count).astype(np.float32)
        self.merchant_declines = np.where(rng.random(count) < 0.05, rng.uniform(0.05, 0.25, count), 0.0).astype(
            np.float32
        )
        self.merchant_style = rng.choice(4, count, p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
        self.merchant_ip = self.address(country, rng.integers(0, 2**31, count))
        popularity = rng.permutation(zipf_weights(count, config.merchant_skew, flat=3))
        self._make_tables(popularity)

    def _make_tables(self, popularity: Integers) -> None:
        channel = CATEGORY_CHANNEL[self.merchant_category]
        resale = np.array([category.resale for category in CATEGORIES])[self.merchant_category]
        small = np.array([category.small for category in CATEGORIES])[self.merchant_category]
        self.merchant_online = channel == Channel.ONLINE
        self.online = _table_of(self.merchant_online, popularity)
        self.resale = _table_of(resale, popularity)
        self.resale_online = _table_of(resale & self.merchant_online, popularity)
        self.small = _table_of(small, popularity)
        self.obscure = np.flatnonzero((popularity <= np.quantile(popularity, 0.6)) & (channel != Channel.ATM)).astype(
            np.int32
        )
        tables = [_table_of(self.merchant_country == country, popularity) for country in range(len(COUNTRIES))]
        self._local = np.concatenate(tables)
        sizes = np.array([len(table) for table in tables])
        self._local_size, self._local_start = sizes, np.cumsum(sizes) - sizes

    def local_merchant(self, country: Integers, place: Integers) -> Integers:
        """Return the merchants at uniform ``place`` in [0, 1) of each country's popularity table."""
        row = self._local_start[country] + (place * self._local_size[country]).astype(np.int64)
        merchants: Integers = self._local[row]
        return merchants

    def location(self, user: Integers, ts_ms: Integers) -> Integers:
        """Return the country index in which each user is: home, or abroad on a trip."""
        shifted = ts_ms + self._shift_ms[user]
        trip, phase = np.divmod(shifted, self._trip_period_ms[user])
        home = self.user_home[user]
        away = np.flatnonzero(phase < self._trip_length_ms[user])
        here = home.copy()
        if len(away):
            here[away] = (mix(self.salt + 1, user[away], trip[away]) % np.uint64(len(COUNTRIES))).astype(np.uint8)
        return here

    def device(self, user: Integers, slot: Integers, ts_ms: Integers) -> tuple[Integers, Mask]:
        """Return the number of each user's device in a slot (0 telephone, 1 computer), and whether it is new.

        New is: in use for less than three days, when a login often fails and is asked for again.
        """
        user = np.where(slot == 1, self._household[user], user)
        shifted = ts_ms + self._shift_ms[user] + slot * (97 * DAY_MS)
        epoch, age = np.divmod(shifted, self._device_period_ms[user])
        number = (np.asarray(slot, dtype=np.int64) << 38) | (user.astype(np.int64) << 11) | (epoch & 2047)
        return number, age < 3 * DAY_MS

    def address(self, country: Integers, host: Integers) -> Integers:
        """Return the address of a host number in a country's network, as a 32-bit number."""
        return ((_NETWORKS[country] << 24) | (host & 0xFF_FFFF)).astype(np.uint32)

    def home_address(self, user: Integers, ts_ms: Integers, country: Integers) -> Integers:
        """Return the fixed-line address of each user: a lease of four weeks."""
        house = self._household[user]
        lease = (ts_ms + self._shift_ms[house]) // (28 * DAY_MS)
        return self.address(country, (mix(self.salt + 2, house, lease) & np.uint64(0x7F_FFFF)).astype(np.int64))

    def mobile_address(self, rng: np.random.Generator, country: Integers) -> Integers:
        """Return an address of the country's mobile carrier, which many customers share."""
        pool = max(8, len(self.user_home) // 40)
        return self.address(country, 0xC8_0000 | rng.integers(0, min(pool, 0xFFFF), len(country)))

    def data_centre_address(self, rng: np.random.Generator, size: int) -> tuple[Integers, Integers]:
        """Return addresses of VPN providers, which honest and dishonest use alike, and where they seem to be."""
        pool = max(32, len(self.user_home) // 100)
        host = rng.integers(0, min(pool, 0xFFFF), size)
        country = (mix(self.salt + 3, host) % np.uint64(len(COUNTRIES))).astype(np.uint8)
        return ((DATA_CENTRE_NETWORK << 24) | host).astype(np.uint32), country

    def fresh_devices(self, rng: np.random.Generator, size: int) -> Integers:
        """Return numbers of devices that nobody was seen with: thrown away after use, or wiped."""
        return ONE_OFF | rng.integers(0, ONE_OFF, size)

    def draw_cards(self, rng: np.random.Generator, size: int) -> Integers:
        """Draw cards by their activity."""
        return draw(rng, self.cards, size)


def zipf_weights(count: int, exponent: float, *, flat: float) -> Integers:
    """Return Zipf weights by rank; ``flat`` ranks are added so that the first do not swallow everything."""
    weights: Integers = (np.arange(count) + 1.0 + flat) ** -exponent
    return weights


def _days(days: Floats) -> Integers:
    milliseconds: Integers = (DAY_MS * days).astype(np.int64)
    return milliseconds


def _table_of(chosen: Mask, popularity: Integers) -> Integers:
    members = np.flatnonzero(chosen).astype(np.int32)
    table: Integers = members[draw_table(popularity[members], max(8 * len(members), 4_096))]
    return table
