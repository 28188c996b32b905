"""librdkafka's mock: brokers inside the process that answer with errors on demand, a judge of nothing else."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka

# Kafka's protocol: the keys of requests, and errors as brokers give them.
PRODUCE, LIST_OFFSETS = 0, 2
NOT_LEADER, REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS, TOPIC_AUTHORIZATION_FAILED = 6, 7, 19, 29

_POINTER, _INT, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
_SIGNATURES = {
    "rd_kafka_conf_new": (_POINTER,),
    "rd_kafka_new": (_POINTER, _INT, _POINTER, _TEXT, _SIZE),
    "rd_kafka_destroy": (None, _POINTER),
    "rd_kafka_mock_cluster_new": (_POINTER, _POINTER, _INT),
    "rd_kafka_mock_cluster_destroy": (None, _POINTER),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, _POINTER),
    "rd_kafka_mock_topic_create": (_INT, _POINTER, _TEXT, _INT, _INT),
    "rd_kafka_mock_push_request_errors_array": (None, _POINTER, ctypes.c_int16, _SIZE, ctypes.POINTER(_INT)),
    "rd_kafka_mock_broker_set_down": (_INT, _POINTER, ctypes.c_int32),
    "rd_kafka_mock_broker_set_up": (_INT, _POINTER, ctypes.c_int32),
}


class MockCluster:
    """One broker; `servers` is its address."""

    def __init__(self, library: ctypes.CDLL, cluster: int) -> None:
        self._library, self._cluster = library, cluster
        self.servers: str = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()

    def create(self, topic: str, partitions: int = 1) -> None:
        assert self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1) == 0

    def fail(self, *errors: int, request: int = PRODUCE) -> None:
        """Answer the next requests of a kind with these errors, one each."""
        array = (_INT * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, request, len(errors), array)

    def set_up(self, up: bool) -> None:
        change = self._library.rd_kafka_mock_broker_set_up if up else self._library.rd_kafka_mock_broker_set_down
        assert change(self._cluster, 1) == 0


@contextmanager
def mock_cluster() -> Iterator[MockCluster]:
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))  # the one that is loaded already
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    text = ctypes.create_string_buffer(256)
    owner = library.rd_kafka_new(0, library.rd_kafka_conf_new(), text, len(text))
    assert owner, text.value
    cluster = library.rd_kafka_mock_cluster_new(owner, 1)
    try:
        yield MockCluster(library, cluster)
    finally:
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(owner)
