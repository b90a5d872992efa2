"""What is asked of Pulsar's admin API over HTTP: tenants, namespaces, topics, quotas, and how far a subscription is.

It needs no Pulsar client. A source asks for its backlog with the token that it reads with; the rest is for those who set a cluster up.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from gillnet.core.errors import ConfigurationError, GillnetError
from gillnet.core.secrets import conceal, remember

if TYPE_CHECKING:
    from collections.abc import Sequence


class AdminError(GillnetError):
    """The admin API refuses, or cannot be reached.

    Attributes
    ----------
    status
        The HTTP status; 0 where nothing answered.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PulsarAdmin:
    """The admin API of a cluster, as one role.

    Parameters
    ----------
    url
        ``http://host:8080`` or ``https://host:8443``.
    token
        The role's; empty for none.
    ca_file
        Certificates to trust, for https; empty for the system's.

    Raises
    ------
    ConfigurationError
        If the URL is none.
    """

    def __init__(self, url: str, *, token: str = "", ca_file: str = "", timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigurationError(
                "[pulsar] admin_url is the address of the admin API, such as http://broker:8080; a token goes into token."
            )
        remember(token)
        self.url = url
        self._parts = parts
        self._token = token
        self._timeout_s = timeout_s
        self._context = ssl.create_default_context(cafile=ca_file or None) if parts.scheme == "https" else None

    def __repr__(self) -> str:
        return f"PulsarAdmin(url={self.url!r})"

    # Setting up

    def namespaces(self, tenant: str) -> list[str]:
        """Return a tenant's namespaces, each as ``tenant/namespace``."""
        return list(self._call("GET", f"namespaces/{_safe(tenant)}"))

    def create_tenant(self, tenant: str, *, roles: Sequence[str], clusters: Sequence[str]) -> None:
        """Make a tenant whose namespaces and topics these roles may set up; nothing where it is there."""
        body = {"adminRoles": list(roles), "allowedClusters": list(clusters)}
        self._make(f"tenants/{_safe(tenant)}", body)

    def create_namespace(self, namespace: str, *, roles: Sequence[str] = ()) -> None:
        """Make a namespace, ``tenant/name``, whose topics these roles may read and write; nothing more where it is there."""
        self._make(f"namespaces/{_safe(namespace)}", None)
        for role in roles:
            self._call("POST", f"namespaces/{_safe(namespace)}/permissions/{_safe(role)}", ["produce", "consume"])

    def create_topic(self, topic: str, *, partitions: int) -> None:
        """Make a partitioned topic, ``tenant/namespace/name``; nothing where it is there."""
        self._make(f"persistent/{_safe(topic)}/partitions", partitions)

    def limit_backlog(self, namespace: str, *, bytes_most: int, policy: str = "producer_exception") -> None:
        """Set how many bytes of a namespace's topic may wait for their readers, and what becomes of its producers then."""
        place = f"namespaces/{_safe(namespace)}/backlogQuota?backlogQuotaType=destination_storage"
        self._call("POST", place, {"limitSize": bytes_most, "policy": policy})

    def delete_topic(self, topic: str) -> None:
        """Remove a partitioned topic, its messages and its subscriptions."""
        self._call("DELETE", f"persistent/{_safe(topic)}/partitions?force=true")

    # Looking

    def backlog(self, topic: str, subscription: str) -> int | None:
        """Return how many messages of a topic, or of one of its partitions, wait for a subscription; None where there is none."""
        place = f"persistent/{_safe(topic)}/stats?getPreciseBacklog=true&subscriptionBacklogSize=false"
        found = self._call("GET", place).get("subscriptions", {}).get(subscription)
        return None if found is None else int(found["msgBacklog"])

    def _make(self, place: str, body: object) -> None:
        try:
            self._call("PUT", place, body)
        except AdminError as error:
            if error.status != http.client.CONFLICT:
                raise

    def _call(self, method: str, place: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        path = f"{self._parts.path.rstrip('/')}/admin/v2/{place}"
        text = None if body is None else json.dumps(body)
        connection = self._connection()
        try:
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(f"Pulsar admin API {self.url}: it cannot be reached: {error}.", 0) from None
        finally:
            connection.close()
        if answer.status >= http.client.MULTIPLE_CHOICES:
            said = conceal(" ".join(data.decode(errors="replace").split()))[:300] or answer.reason
            what = f"Pulsar admin API {self.url}: {method} {place.partition('?')[0]}"
            raise AdminError(f"{what} is refused ({answer.status}): {said}.", answer.status)
        return json.loads(data) if data else {}

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


def _safe(name: str) -> str:
    return quote(name)
