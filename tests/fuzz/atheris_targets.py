"""The same judges under coverage guidance (atheris): `python -m tests.fuzz.atheris_targets TARGET [-runs=N] [CORPUS]`.

Not collected by pytest; needs the extra `fuzz`. A crash leaves its input as crash-* in the working directory.
"""

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["bot"]):
    from tests.fuzz import test_csv, test_frames, test_replies, test_settings
    from tests.fuzz.garbage import written


def _frames(data, path):
    test_frames.judge_frame(data)


def _account(data, path):
    test_frames.judge_event(data)


def _replies(data, path):
    name = list(test_replies.CALLS)[data[0] % len(test_replies.CALLS)] if data else "place"
    exchange = test_replies.an_exchange(lambda _: data[1:])
    answer = test_replies.asked(test_replies.CALLS[name][1], exchange)
    test_replies.assert_usable(name, answer, data[1:])


def _toml(data, path):
    file = path / "bot.toml"
    file.write_bytes(data)
    test_settings.loaded(config_file=file, environment={})


def _csv(data, path):
    file = path / "BTCUSDT-1m-x.csv"
    file.write_bytes(data)
    test_csv.judge_file(file, data)


def _seeds(target):
    """What to begin with: documents as the exchange sends them, files as people write them."""
    random = Random(1)
    if target == "toml":
        return ["\n".join(f"{key} = {value}" for key, value in test_settings.TOML.items()).encode()]
    if target == "csv":
        return [test_csv.a_file(random) for _ in range(50)]
    if target == "replies":
        return [bytes([n]) + written(document).encode() for n, (document, _) in enumerate(test_replies.CALLS.values())]
    documents = test_frames.ACCOUNT_EVENTS if target == "account" else [test_frames.a_frame(random) for _ in range(20)]
    return [written(document).encode() for document in (*documents, *test_frames.OTHERS)]


TARGETS = {"frames": _frames, "account": _account, "replies": _replies, "toml": _toml, "csv": _csv}


def main():
    target, *flags = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        corpus = path / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(_seeds(target)):
            (corpus / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], "-max_len=4096", *flags, str(corpus)], lambda data: TARGETS[target](data, path))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
