"""A strict simulated Binance exchange: a server on loopback that shares no code with what it judges."""

from bot.simulator.errors import SimulatorError
from bot.simulator.server import SimulatedExchange
from bot.simulator.settings import Endpoints, SimulatorConfig

__all__ = ["Endpoints", "SimulatedExchange", "SimulatorConfig", "SimulatorError"]
