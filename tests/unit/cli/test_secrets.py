"""A secret never appears: not where it is right, not where it is wrong, and not where something else breaks.

Every canary below is a secret of another kind. A case takes it down one path, and nothing that the command said may hold any.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from command_line import APP, Command

from gillnet.app import load_config
from gillnet.connectors.uri import parse_uri
from gillnet.core import secrets
from gillnet.core.errors import ConfigurationError
from gillnet.state import CheckpointStore

ENVIRONMENT = {
    "KAFKA_PASSWORD": 'canary-"sasl\\pass',
    "KEY_PASSWORD": "canary-ssl-key",
    "AWS_ACCESS_KEY_ID": "AKIDCANARYNOTSECRET",
    "AWS_SECRET_ACCESS_KEY": "canary-s3-secret",
    "API_TOKEN": "canary-token",
    "PULSAR_TOKEN": "canary-pulsar-token",
}
SIMULATED = ("--source", "payments=simulator:payments?duration=2m")
NOWHERE = "kafka://127.0.0.1:9/payments"
PULSAR = "pulsar://127.0.0.1:9/t/n/payments"
SASL = (
    '[kafka]\n"sasl.password" = "${KAFKA_PASSWORD}"\n"ssl.key.password" = "${KEY_PASSWORD}"\n"sasl.username" = "ann"\n'
)
"""A right configuration, to which a case adds what is wrong."""

CASES: dict[str, tuple[str, list[str]]] = {
    "refused settings": ('"security.protocol" = "nonsense"', ["-s", f"payments={NOWHERE}"]),
    "a secret as another setting": ('"sasl.mechanism" = "${KAFKA_PASSWORD}"', ["-s", f"payments={NOWHERE}"]),
    "a mistyped setting": ('"sasl.pasword" = "${KAFKA_PASSWORD}"', ["-s", f"payments={NOWHERE}"]),
    "a setting that is no text": ('"sasl.jaas" = ["canary-list"]', ["-s", f"payments={NOWHERE}"]),
    "no TOML": ('"sasl.password = "canary-torn', ["-s", f"payments={NOWHERE}"]),
    "a mistyped section": ("", [*SIMULATED, "--set", "kafak.sasl.password=canary-set"]),
    "a setting without its name": ("", [*SIMULATED, "--set", "canary-alone"]),
    "a secret in a setting of the run": ("", [*SIMULATED, "--set", "options.emit=canary-emit"]),
    "a password in a source": ("", ["-s", "payments=kafka://ann:canary-uri@127.0.0.1:9/payments"]),
    "a secret as a parameter": ("", ["-s", f"payments={NOWHERE}?sasl.password=canary-parameter"]),
    "parameters that cannot be read": ("", ["-s", f"payments={NOWHERE}?canary-bare"]),
    "a secret in a sink": ("", [*SIMULATED, "--sink", "decisions=kafka://ann:canary-uri@127.0.0.1:9/d"]),
    "a secret as a sink's parameter": ("", [*SIMULATED, "--sink", "decisions=out.ndjson?token=canary-parameter"]),
    "one place for two outputs": (
        "",
        [*SIMULATED, "--sink", "decisions=x.ndjson?mode=canary", "--sink", "alerts=x.ndjson?mode=canary"],
    ),
    "credentials of an object store": ("", [*SIMULATED, "--checkpoints", "s3://AKID:canary-s3-uri@bucket/path"]),
    "an unknown store": ("", [*SIMULATED, "--checkpoints", "s4://bucket/path?secret=canary-s4"]),
    "a parameter of a store": ("", [*SIMULATED, "--checkpoints", "s3://bucket/path?secret_key=canary-s3-parameter"]),
    "a token that Pulsar cannot take": ('[pulsar]\ntoken = "${PULSAR_TOKEN}"', ["-s", f"payments={PULSAR}"]),
    "a token as another setting of Pulsar": ('[pulsar]\nadmin_url = "${PULSAR_TOKEN}"', ["-s", f"payments={PULSAR}"]),
    "a mistyped setting of Pulsar": ('[pulsar]\ntokn = "${PULSAR_TOKEN}"', ["-s", f"payments={PULSAR}"]),
    "a token in an admin URL": ('[pulsar]\nadmin_url = "http://x:canary-admin@h"', ["-s", f"payments={PULSAR}"]),
    "a token as a parameter of Pulsar": ("", ["-s", f"payments={PULSAR}?token=canary-parameter"]),
    "a token in a sink of Pulsar": ("", [*SIMULATED, "--sink", "decisions=pulsar://a:canary-uri@h:1/t/n/d"]),
    "a file of a token that is not there": ('[pulsar]\ntoken_file = "none"', ["-s", f"payments={PULSAR}"]),
    "a full disk": ("", [*SIMULATED, "--sink", "decisions=/dev/full"]),
    "a source that cannot be checked": ("", ["-s", "payments=none.ndjson"]),
}
SHOWN = {"a secret in a setting of the run"}
"""Where what was typed is no secret by its name, and is shown so that the mistake can be seen."""


@pytest.fixture(autouse=True)
def _canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", {})
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")


def said(result: Result) -> str:
    return result.stdout + result.stderr + repr(result.exception)


@pytest.mark.parametrize("debug", ["", "1"], ids=["plain", "debug"])
@pytest.mark.parametrize("case", sorted(set(CASES) - SHOWN))
def test_no_error_shows_a_secret(
    gillnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, debug: str
) -> None:
    settings, arguments = CASES[case]
    (tmp_path / "gillnet.toml").write_text(SASL + settings + "\n", encoding="utf-8")
    monkeypatch.setenv("GILLNET_DEBUG", debug)
    result = gillnet("run", "app.py", "--plain", *arguments)
    assert result.exit_code in (1, 2), result.output
    assert "error:" in result.stderr
    assert "canary" not in said(result)
    assert ("Traceback" in result.stderr) == bool(debug)


def test_a_value_that_no_name_says_is_secret_is_shown_so_that_the_mistake_can_be_seen(gillnet: Command) -> None:
    result = gillnet("run", "app.py", *CASES["a secret in a setting of the run"][1])
    assert "canary-emit" in result.stderr


@pytest.mark.parametrize("debug", ["", "1"], ids=["plain", "debug"])
def test_not_even_a_fault_of_gillnet_that_carries_it(
    gillnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: str
) -> None:
    def broken(_pipeline: object, config: object) -> None:
        raise KeyError(config.kafka["sasl.password"])  # type: ignore[attr-defined]

    (tmp_path / "gillnet.toml").write_text(SASL, encoding="utf-8")
    monkeypatch.setenv("GILLNET_DEBUG", debug)
    monkeypatch.setattr("gillnet.cli.run.run_plain", broken)
    result = gillnet("run", "app.py", "--plain", *SIMULATED)
    assert "KeyError" in result.stderr
    assert "canary" not in result.stdout + result.stderr
    assert secrets.BLOT in result.stderr


@pytest.mark.slow  # An object store's client tries for some seconds.
def test_an_object_store_that_is_not_there(gillnet: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GILLNET_DEBUG", "1")
    place = "s3://bucket/path?endpoint_override=127.0.0.1:9&scheme=http&region=eu-central-1"
    result = gillnet("run", "app.py", "--plain", *SIMULATED, "--checkpoints", place)
    assert result.exit_code == 1, result.output
    assert "canary" not in said(result)
    assert "s3://bucket/path" in result.stderr


def test_no_repr_shows_one(tmp_path: Path) -> None:
    (tmp_path / "gillnet.toml").write_text(
        'checkpoints = "s3://bucket/x?token=${API_TOKEN}"\n'
        '[sources]\npayments = "kafka://h:9092/t?group=${API_TOKEN}"\n'
        '[sinks]\ndefault = "out/{name}.ndjson?x=${API_TOKEN}"\nalerts = "a.ndjson?x=${API_TOKEN}"\n' + SASL,
        encoding="utf-8",
    )
    config = load_config()
    assert config.kafka["sasl.password"] == ENVIRONMENT["KAFKA_PASSWORD"]
    assert config.sources["payments"].endswith("canary-token")
    assert "canary" not in repr(config)
    assert "canary" not in repr(parse_uri(config.sources["payments"], what="Source"))
    assert "canary" not in repr(CheckpointStore("mock://somewhere/x?token=canary-token"))


def test_what_a_plan_says_holds_no_setting(gillnet: Command, tmp_path: Path) -> None:
    (tmp_path / "gillnet.toml").write_text(SASL, encoding="utf-8")
    for arguments in (["explain", "app.py"], ["explain", "app.py", "--json"]):
        result = gillnet(*arguments)
        assert result.exit_code == 0
        assert "canary" not in said(result)


def test_a_known_secret_is_blotted_out_in_every_form_and_short_ones_are_left() -> None:
    secrets.remember('pa"ss\nword')
    secrets.remember("pa")
    for text in ('in pa"ss\nword.', '{"x": "pa\\"ss\\nword"}', repr('pa"ss\nword'), 'joined pa"ss word'):
        assert "word" not in secrets.conceal(text)
    assert secrets.conceal("a path") == "a path"


def test_a_variable_that_is_not_set_is_named_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY_PASSWORD")
    (tmp_path / "gillnet.toml").write_text(SASL, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="KEY_PASSWORD is not set") as caught:
        load_config()
    assert "canary" not in str(caught.value)


def test_a_configuration_that_is_nested_too_deep_is_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "gillnet.toml").write_text("x = " + "[" * 5_000, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="nested too deep"):
        load_config()
