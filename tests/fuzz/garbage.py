"""What the fuzz tests feed: documents that are nearly right, and texts that are nearly documents. All from a seed."""

import json
import os
from copy import deepcopy
from random import Random

CASES = int(os.environ.get("BULKHEAD_FUZZ_CASES", "12000"))
"""How many inputs all fuzz tests together get; `make fuzz` takes a million."""
SEED = int(os.environ.get("BULKHEAD_FUZZ_SEED", "1"))
"""Another one gives other inputs; a failure names the seed and number of its case."""


class Raw(str):
    """Stands in a document as it is, not as a JSON string."""


ODD_TEXTS = (
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "1_000", "-1", "-0", "-64010.01", "0", "0.00000000", "+1", "", " "),
    *(
        "1e400",
        "1E5",
        "1e-5",
        "1e-400",
        " 1",
        "1 ",
        "1\n",
        "\n1",
        "1\x00",
        "\u0663",
        "\uff11",
        "\u00b2",
        "1.",
        ".5",
        ".",
    ),
    *(
        "0x10",
        "1,000",
        "1.2.3",
        "9" * 20,
        "9" * 21,
        "9" * 5000,
        "0." + "0" * 19 + "1",
        "0." + "0" * 25 + "1",
        "--1",
        "1e",
    ),
    *(
        "true",
        "null",
        "BTCUSDT",
        "btcusdt",
        "\ud83d\ude00",
        "kline",
        "serverShutdown",
        "FILLED",
        "'; DROP TABLE orders;--",
    ),
)
ODD_VALUES = (
    *(0, -1, 1, 1.5, 1.0, -0.0, 1e308, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**14, 10**14 - 1, 10**400),
    *(True, False, None, [], {}, [[]], {"e": "kline"}, [1, "2", None]),
)
ODD_RAW = tuple(
    map(
        Raw,
        (
            *(
                "NaN",
                "Infinity",
                "-Infinity",
                "1e999",
                "-1e999",
                "01",
                "1_000",
                "-",
                "+1",
                "1.",
                ".5",
                "0x1",
                "nul",
                "'a'",
            ),
            *('"\\ud800"', '"\\x41"', '"\t"', '"\x00"', "[" * 3000 + "]" * 3000, '{"a":' * 2000 + "1" + "}" * 2000),
            *("[" * 100_000, "9" * 5000, "1" + "0" * 5000, "1." + "0" * 5000 + "1", "", "{}{}", "//", "undefined"),
        ),
    )
)
UNKNOWN = ("zzz", "st", "\u00fc", "__proto__", "", "e ", "K", "Z" * 300)
FRAGMENTS = (
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\x00",
    b"}",
    b"{",
    b"]",
    b"[",
    b'"',
    b",",
    b":",
    b"\\",
    b"e",
    b"-",
    b"9",
)


def written(value, random=None):
    """JSON of a document that may hold Raw; with `random` the keys and blanks as no exchange would have them."""
    if isinstance(value, Raw):
        return str(value)
    gap = random.choice(("", "", " ", "\n\t")) if random else ""
    if isinstance(value, dict):
        items = list(value.items())
        if random and random.random() < 0.3:
            random.shuffle(items)
        return "{" + f",{gap}".join(f"{json.dumps(k)}:{gap}{written(v, random)}" for k, v in items) + "}"
    if isinstance(value, list):
        return "[" + f",{gap}".join(written(item, random) for item in value) + "]"
    return json.dumps(value)


def odd(random):
    """A value that nobody asked for."""
    return deepcopy(random.choice(random.choice((ODD_TEXTS, ODD_TEXTS, ODD_VALUES, ODD_RAW))))


def _places(value):
    """All containers of a document."""
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _places(item)


def _disturb(document, random):
    place = random.choice(list(_places(document)))
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    step = random.random()
    if step < 0.15 and isinstance(place, dict):
        place[random.choice(UNKNOWN)] = odd(random)
    elif not keys:
        return
    elif step < 0.3:
        del place[random.choice(keys)]
    elif step < 0.4 and len(keys) > 1:
        one, other = random.sample(keys, 2)
        place[one], place[other] = place[other], place[one]
    elif step < 0.45 and isinstance(place, list):
        place.append(deepcopy(random.choice(place)))
    else:
        place[random.choice(keys)] = odd(random)


def _damage(data, random):
    at = random.randrange(len(data) + 1)
    step = random.randrange(6)
    if step == 0:
        return data[:at]
    if step == 1:
        return data[at:]
    if step == 2:
        return data[:at] + random.choice(FRAGMENTS) + data[at:]
    if step == 3:
        return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
    if step == 4:
        end = random.randrange(at, min(len(data), at + 40) + 1)
        return data[:at] + data[end:]
    end = random.randrange(at, min(len(data), at + 40) + 1)
    return data[:end] + data[at:end] * random.randrange(1, 3) + data[end:]


def nearly(document, random):
    """Bytes near to a document: at most three changes of its values, at most two of its text."""
    if random.random() < 0.01:
        return random.randbytes(random.randrange(200))
    document = deepcopy(document)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        if isinstance(document, dict | list):
            _disturb(document, random)
    data = written(document, random).encode("utf-8", "surrogatepass")
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        data = _damage(data, random)
    return data


def cases(share, name):
    """Yield (number, Random) for this share of all cases, reproducible by name, seed and number."""
    for number in range(max(1, int(CASES * share))):
        yield number, Random(f"{name}/{SEED}/{number}")
