"""A stand-in serves a quarantined name, until the name is released or the stand-in fails too often as well."""

import pytest

from .. import Actor, ActorFailed, ActorQuarantined, ActorRestarted, Context
from .support import A, Num, Scene, fail, spec

BAD = 13


class StandIn(Actor):
    """Does what the scene's script says of messages with a negative number, and notes all."""

    def __init__(self, context: Context, scene: Scene) -> None:
        super().__init__(context)
        self._scene = scene

    def handle(self, message: object) -> None:
        assert isinstance(message, Num)
        if message.n < 0:
            raise ValueError("the stand-in too")
        self._scene.script.log.add(self.context, ("stand-in", message.n))


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.script.on_message[BAD] = fail(ValueError("bad"))
    child = spec(scene.script, max_restarts=1, poison_attempts=1, stand_in=lambda context: StandIn(context, scene))
    return scene.start(child)


def quarantined(scene: Scene) -> Scene:
    scene.tell(BAD, BAD, 1, 2)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=2)
    scene.settle()
    return scene


def test_the_stand_in_takes_what_waits_in_order(scene: Scene) -> None:
    quarantined(scene)
    assert scene.script.log.messages() == [("stand-in", 1), ("stand-in", 2)]
    assert scene.status().state == "quarantined"
    assert len(scene.recorder.of(ActorQuarantined)) == 1
    scene.system.stop()


def test_release_brings_the_actor_proper_back(scene: Scene) -> None:
    quarantined(scene)
    assert scene.system.release(A)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=3)
    assert not scene.system.release(A)
    scene.tell(3)
    scene.settle()
    assert scene.script.log.messages()[-1] == Num(3)
    assert scene.status().state == "running"
    scene.system.stop()


def test_a_stand_in_that_fails_is_restarted_and_given_up_in_the_end(scene: Scene) -> None:
    quarantined(scene)
    scene.tell(-1, 4)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=3)
    scene.settle()
    assert scene.script.log.messages()[-1] == ("stand-in", 4)
    scene.tell(-2)
    scene.recorder.wait(ActorFailed, count=4)
    scene.settle()
    assert scene.status().state == "quarantined"
    # The name is shut a moment after the failure is told of.
    assert any(not scene.system.tell(A, Num(5)) for _ in range(1_000_000))
    assert len(scene.recorder.of(ActorQuarantined)) == 1
    assert scene.system.release(A)
    scene.recorder.wait_advancing(scene.clock, ActorRestarted, count=4)
    scene.tell(6)
    scene.settle()
    assert scene.script.log.messages()[-1] == Num(6)
    scene.system.stop()
