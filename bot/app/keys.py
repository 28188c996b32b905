"""The API keys of an account: from the environment, else from AWS by name. Source: contract, section 6."""

from bot.config import ConfigError, Settings

NAMES = ("BOT_API_KEY", "BOT_API_SECRET")


class Keys:
    """A key and its secret, which show nowhere; `source` says in words where they came from."""

    def __init__(self, key: str, secret: str, source: str) -> None:
        self.key = key
        self.secret = secret
        self.source = source

    def __repr__(self) -> str:
        return f"Keys({self.source!r})"


def need_keys(settings: Settings) -> None:
    """Refuse settings that name no keys, without asking anybody for them. Raises ConfigError."""
    aws = settings.aws
    given = [bool(value.get_secret_value()) for value in (settings.api_key, settings.api_secret)]
    if any(given) and not all(given):
        there, missing = NAMES if given[0] else NAMES[::-1]
        raise ConfigError(f"{there} is set without {missing}: set both in the environment, or neither")
    if aws.secret_id and aws.ssm_path:
        raise ConfigError("aws.secret_id and aws.ssm_path are both set: name one place for the keys")
    if not (any(given) or aws.secret_id or aws.ssm_path):
        raise ConfigError(
            f"mode {settings.mode.value} needs keys: set {' and '.join(NAMES)} in the environment, "
            "or aws.secret_id (Secrets Manager) or aws.ssm_path (SSM Parameter Store)"
        )


def find_keys(settings: Settings) -> Keys:
    """Return the keys; those of the environment win over those of AWS.

    Raises ConfigError or ConfigurationRefused where settings, permissions or what is kept there are wrong,
    KeysUnavailable where AWS cannot be asked.
    """
    need_keys(settings)
    aws = settings.aws
    key, secret = settings.api_key.get_secret_value(), settings.api_secret.get_secret_value()
    elsewhere = "aws.secret_id" if aws.secret_id else "aws.ssm_path" if aws.ssm_path else ""
    if key:
        source = f"from the environment, {elsewhere} is not asked" if elsewhere else "from the environment"
    else:
        # Only now: nobody else waits for boto3.
        from bot.adapters.aws import keys_from_parameters, keys_from_secret

        if aws.secret_id:
            key, secret = keys_from_secret(aws.secret_id, aws.region, aws.endpoint_url)
            source = f"from Secrets Manager, {aws.secret_id}"
        else:
            key, secret = keys_from_parameters(aws.ssm_path, aws.region, aws.endpoint_url)
            source = f"from SSM Parameter Store, {aws.ssm_path}"
    for name, value in zip(("key", "secret"), (key, secret), strict=True):
        # Refused here without showing it: an HTTP library would print a header that it cannot send.
        if not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
            raise ConfigError(f"the API {name} {source} holds a blank, a line break or an odd character: copy it again")
    return Keys(key, secret, source)
