"""A process's death between any two of its effects, without a process."""


class Died(BaseException):
    """The process is gone; nothing that it had in memory is left."""


class Dying:
    """Calls of which one, before or after it did its work, is the process's last: `bot.dies_in` counts down to it."""

    def __init__(self, real, bot):
        self.real, self.bot = real, bot

    def __getattr__(self, name):
        found = getattr(self.real, name)
        if not callable(found):
            return found

        def call(*arguments):
            self.step()
            result = found(*arguments)
            self.step()
            return result

        return call

    def step(self):
        if self.bot.dies_in is not None:
            self.bot.dies_in -= 1
            if self.bot.dies_in < 0:
                raise Died
