"""Settings of TLS and SASL: what fits together, what is refused, and that no password is ever shown."""

import pytest

from clockwork.errors import CannotStart
from clockwork.settings.sources import load_settings

SCRAM = {
    "CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "CLOCKWORK_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "CLOCKWORK_KAFKA_SASL_USERNAME": "node",
    "CLOCKWORK_KAFKA_SASL_PASSWORD": "hush-hush",
}
MSK = {"CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "CLOCKWORK_KAFKA_SASL_MECHANISM": "AWS_MSK_IAM"}


def without(environ: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in environ.items() if key != name}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(CannotStart) as caught:
        load_settings(environ)
    return str(caught.value)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        SCRAM,
        MSK,
        SCRAM | {"CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "CLOCKWORK_KAFKA_SASL_MECHANISM": "plain"},
        SCRAM | {"CLOCKWORK_KAFKA_TLS_CA": "ca", "CLOCKWORK_KAFKA_TLS_CHECK_HOSTNAME": "false"},
        {
            "CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "SSL",
            "CLOCKWORK_KAFKA_TLS_CERT": "c",
            "CLOCKWORK_KAFKA_TLS_KEY": "k",
        },
        {"CLOCKWORK_HTTP_TLS_CERT": "c", "CLOCKWORK_HTTP_TLS_KEY": "k"},
    ],
)
def test_what_fits_together_is_accepted(environ: dict[str, str]) -> None:
    load_settings(environ)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "TLS"}, "CLOCKWORK_KAFKA_SECURITY_PROTOCOL"),
        (SCRAM | {"CLOCKWORK_KAFKA_SASL_MECHANISM": "GSSAPI"}, "CLOCKWORK_KAFKA_SASL_MECHANISM"),
        *((without(SCRAM, name), name) for name in SCRAM if name != "CLOCKWORK_KAFKA_SECURITY_PROTOCOL"),
        # An operator believes to be protected, and is not.
        *(({name: SCRAM[name]}, name) for name in SCRAM if name != "CLOCKWORK_KAFKA_SECURITY_PROTOCOL"),
        *(
            (SCRAM | {"CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", name: value}, name)
            for name, value in (
                ("CLOCKWORK_KAFKA_TLS_CA", "ca"),
                ("CLOCKWORK_KAFKA_TLS_CHECK_HOSTNAME", "false"),
            )
        ),
        ({"CLOCKWORK_KAFKA_TLS_CA": "ca"}, "CLOCKWORK_KAFKA_TLS_CA"),
        (SCRAM | {"CLOCKWORK_KAFKA_TLS_CERT": "c"}, "CLOCKWORK_KAFKA_TLS_KEY"),
        (SCRAM | {"CLOCKWORK_KAFKA_TLS_KEY": "k"}, "CLOCKWORK_KAFKA_TLS_CERT"),
        (MSK | {"CLOCKWORK_KAFKA_SASL_PASSWORD": "x"}, "CLOCKWORK_KAFKA_SASL_PASSWORD"),
        (MSK | {"CLOCKWORK_KAFKA_SASL_USERNAME": "x"}, "CLOCKWORK_KAFKA_SASL_USERNAME"),
        (MSK | {"CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "CLOCKWORK_KAFKA_SECURITY_PROTOCOL"),
        ({"CLOCKWORK_HTTP_TLS_CERT": "c"}, "CLOCKWORK_HTTP_TLS_KEY"),
        ({"CLOCKWORK_HTTP_TLS_KEY": "k"}, "CLOCKWORK_HTTP_TLS_CERT"),
    ],
)
def test_what_does_not_fit_together_stops_the_start_and_is_named(environ: dict[str, str], named: str) -> None:
    line = refusal(environ)
    assert f" {named}: " in line
    assert "hush" not in line


def test_the_password_of_kafka_is_not_in_the_settings_text() -> None:
    loaded = load_settings(SCRAM)
    assert loaded.kafka_security.password is not None
    assert loaded.kafka_security.password.get_secret_value() == "hush-hush"
    assert "hush" not in repr(loaded)
