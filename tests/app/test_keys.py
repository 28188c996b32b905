"""Where the keys of a run come from, and that settings without any are refused before anybody is asked."""

import subprocess
import sys

import pytest

from bot.app.keys import find_keys, need_keys
from bot.config import ConfigError, load_settings

KEY, SECRET = "KEY" + "k" * 61, "SECRET" + "s" * 58
PAIR = {"BOT_API_KEY": KEY, "BOT_API_SECRET": SECRET}


def settings(**variables):
    return load_settings({"mode": "testnet"}, environment=variables)


def refused(found, **variables):
    with pytest.raises(ConfigError) as caught:
        found(settings(**variables))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_environment_wins_and_says_so():
    assert repr(find_keys(settings(**PAIR))) == "Keys('from the environment')"
    keys = find_keys(settings(**PAIR, BOT_AWS__SECRET_ID="bulkhead"))
    assert (keys.key, keys.secret) == (KEY, SECRET)
    assert keys.source == "from the environment, aws.secret_id is not asked"
    assert "aws.ssm_path is not asked" in find_keys(settings(**PAIR, BOT_AWS__SSM_PATH="/bulkhead")).source


@pytest.mark.parametrize("name", ["BOT_API_KEY", "BOT_API_SECRET"])
def test_half_a_pair_is_refused_whatever_else_is_set(name):
    line = refused(need_keys, **{name: PAIR[name]}, BOT_AWS__SECRET_ID="bulkhead")
    assert line.startswith(f"{name} is set without BOT_API_")
    assert PAIR[name] not in line


def test_no_keys_at_all_names_every_way():
    line = refused(need_keys)
    for way in ("BOT_API_KEY", "BOT_API_SECRET", "aws.secret_id", "aws.ssm_path", "mode testnet"):
        assert way in line


def test_two_places_are_refused():
    assert "name one place" in refused(need_keys, BOT_AWS__SECRET_ID="a", BOT_AWS__SSM_PATH="/a")


@pytest.mark.parametrize("path", ["bulkhead", "/a b", "//", "/", "/" + "a/" * 20])
def test_a_path_that_ssm_could_not_have_is_refused(path):
    with pytest.raises(ConfigError, match=r"^aws\.ssm_path: .*write it as /bulkhead/live"):
        settings(BOT_AWS__SSM_PATH=path)


@pytest.mark.parametrize("odd", [f" {SECRET}", f"{SECRET}\n", f"{SECRET}ü", f"{SECRET[:9]}\t{SECRET[9:]}"])
def test_a_value_that_no_header_can_carry_is_refused_unseen(odd):
    line = refused(find_keys, BOT_API_KEY=KEY, BOT_API_SECRET=odd)
    assert line.startswith("the API secret from the environment holds a blank")
    assert SECRET[:9] not in line


def test_boto3_is_loaded_for_those_who_ask_for_it_only():
    code = "import sys, bot.app.system, bot.cli.run, bot.cli.check; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
