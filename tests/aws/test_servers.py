"""The server does what the other tests take for granted."""

from tests.aws.servers import aws_client, running_dynalite
from tests.aws.tables import made, open_history
from tests.support.builders import klines_of


def test_what_is_stored_in_a_directory_survives_sigkill(tmp_path, aws_credentials):
    with running_dynalite(tmp_path / "tables") as server, made(open_history(server.url, "")) as history:
        history.write(klines_of("1"), [])
        server.kill()
        server.start()
        assert aws_client("dynamodb", server.url).scan(TableName="Crypto_Table")["Count"] == 1
        history.write(klines_of("1", "2"), [])
        assert list(history.klines()) == klines_of("1", "2"), "over connections that were cut"
