"""Scenes that are stopped after the test, whatever it did."""

from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from .support import Scene


@pytest.fixture
def make_scene() -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []
    others = pykka.ActorRegistry.get_all()

    def make(**options: Any) -> Scene:
        made.append(Scene(**options))
        return made[-1]

    yield make
    for scene in made:
        scene.system.stop(2_000)
    assert [ref for ref in pykka.ActorRegistry.get_all() if ref not in others] == [], "actors were left over"


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()
