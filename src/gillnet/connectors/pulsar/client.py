"""What every Pulsar client here shares: settings, tokens, readable errors.

A token must not reach a message, a log line or a ``repr``; `explained` is the one way from an error of the client to text. The client's
own log goes nowhere: it writes to standard output, where decisions may go.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulsar

from gillnet.connectors.pulsar_admin import PulsarAdmin
from gillnet.core.errors import ConfigurationError
from gillnet.core.naming import nearest
from gillnet.core.secrets import conceal, remember

Settings = Mapping[str, str]

SETTINGS = {
    "token": "a token, as ${NAME} from the environment",
    "token_file": "a file that holds it",
    "tls_trust_certs_file": "certificates to trust, for pulsar+ssl",
    "tls_validate_hostname": "true or false; true by default",
    "tls_allow_insecure": "true or false; false by default",
    "admin_url": "http://broker:8080: gives the backlog, and the end of a bounded read",
}


def check_settings(settings: Settings | None, *, what: str) -> dict[str, str]:
    """Return a copy of the settings, the token of a file included.

    Raises
    ------
    ConfigurationError
        If one is unknown or has no such value, or the file cannot be read.
    """
    checked = dict(settings or {})
    for name in checked:
        if name not in SETTINGS:
            told = "; ".join(f"{key} ({meaning})" for key, meaning in SETTINGS.items())
            raise ConfigurationError(
                f"{what}: [pulsar] has no setting {name!r}{nearest(name, SETTINGS)}. There are: {told}."
            )
    for name in ("tls_validate_hostname", "tls_allow_insecure"):
        if checked.get(name, "true") not in ("true", "false"):
            raise ConfigurationError(f"{what}: [pulsar] {name} is neither true nor false.")
    if "token" in checked and "token_file" in checked:
        raise ConfigurationError(f"{what}: [pulsar] has both token and token_file; give one.")
    if file := checked.pop("token_file", ""):
        checked["token"] = _token_in(Path(file), what)
    remember(checked.get("token", ""))
    return checked


def _token_in(path: Path, what: str) -> str:
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"{what}: [pulsar] token_file {path}: it cannot be read: {reason}.") from None
    if not token:
        raise ConfigurationError(f"{what}: [pulsar] token_file {path}: it is empty.")
    return token


def make_client(service_url: str, settings: Settings, *, timeout_s: float, what: str) -> Any:
    """Make a client; nothing is asked of a broker yet.

    Raises
    ------
    ConfigurationError
        If the client refuses a setting.
    """
    secured: dict[str, Any] = {}
    if service_url.startswith("pulsar+ssl:"):
        secured = {
            "tls_trust_certs_file_path": settings.get("tls_trust_certs_file"),
            "tls_validate_hostname": settings.get("tls_validate_hostname", "true") == "true",
            "tls_allow_insecure_connection": settings.get("tls_allow_insecure", "false") == "true",
        }
    token = settings.get("token", "")
    try:
        return pulsar.Client(
            service_url,
            authentication=pulsar.AuthenticationToken(token) if token else None,
            operation_timeout_seconds=max(1, round(timeout_s)),
            logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
            **secured,
        )
    except (pulsar.PulsarException, ValueError, TypeError) as error:
        # "from None": the chained exception would show the token.
        raise ConfigurationError(f"{what}: the client refuses the settings: {conceal(str(error))}.") from None


def open_admin(settings: Settings) -> PulsarAdmin | None:
    """Return the admin API that the settings name, if any."""
    url = settings.get("admin_url", "")
    certificates = settings.get("tls_trust_certs_file", "")
    return PulsarAdmin(url, token=settings.get("token", ""), ca_file=certificates, timeout_s=1.0) if url else None


_MEANINGS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (pulsar.ProducerBlockedQuotaExceededException, pulsar.ProducerBlockedQuotaExceededError),
        "the backlog quota of the namespace {namespace} is used up (destination_storage): what was written waits for a subscription "
        "that reads too slowly, or for none. Let it be read, remove the subscription, or raise the quota: pulsar-admin namespaces "
        "set-backlog-quota {namespace}",
    ),
    (
        (pulsar.AuthorizationError, pulsar.AuthenticationError),
        "the broker refuses this client's role: it may not use the topic. Give the role's token ([pulsar] token), or let a role of the "
        "tenant grant it: pulsar-admin namespaces grant-permission {namespace} --role ROLE --actions produce,consume",
    ),
    ((pulsar.TopicNotFound,), "there is no such topic, or no namespace {namespace}; correct its name or create it"),
    (
        (pulsar.ConsumerBusy,),
        "another consumer has the subscription, which is exclusive. Stop the other run, or give this one a subscription of its own "
        "(?subscription=)",
    ),
    ((pulsar.MessageTooBig,), "a record is larger than the broker's maxMessageSize; raise it there, or write less"),
)


def explained(error: BaseException, *, topic: str, service_url: str, settings: Settings) -> str:
    """Say what an error of the client means for a topic, and how to mend it; without the full stop."""
    for kinds, meaning in _MEANINGS:
        if isinstance(error, kinds):
            return meaning.format(namespace=topic.rpartition("/")[0])
    if isinstance(error, (pulsar.Timeout, pulsar.ConnectError)):
        return _silence(service_url, settings)
    return conceal(" ".join(str(error).split())).rstrip(".")


def _silence(service_url: str, settings: Settings) -> str:
    """Tell a broker that cannot be reached from one that hangs up: the client tries again either way, until its time is over."""
    for address in urlsplit(service_url).netloc.split(","):
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
                token = "token is wrong or has expired" if settings.get("token") else "broker wants a token"
                return (
                    f"{address} answers and does not let this client in: the {token} ([pulsar] token or token_file), or TLS is on one "
                    "side only (pulsar+ssl://)"
                )
        except (OSError, ValueError):
            continue
    return f"no broker can be reached at {urlsplit(service_url).netloc}; check the address"
