"""The servers do what the other tests take for granted."""

from tests.aws.servers import aws_client, running_dynalite

KEY = {"AttributeName": "symbol", "KeyType": "HASH"}


def make_table(client, name):
    client.create_table(
        TableName=name,
        KeySchema=[KEY],
        AttributeDefinitions=[{"AttributeName": "symbol", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def test_both_servers_take_a_table_and_an_item(dynalite, moto_url, table_prefix):
    for url in (dynalite.url, moto_url):
        client = aws_client("dynamodb", url)
        make_table(client, f"{table_prefix}one")
        client.put_item(TableName=f"{table_prefix}one", Item={"symbol": {"S": "X"}, "price": {"N": "0.10"}})
        assert client.scan(TableName=f"{table_prefix}one", ConsistentRead=True)["Count"] == 1


def test_what_is_stored_in_a_directory_survives_sigkill(tmp_path):
    with running_dynalite(tmp_path / "tables") as server:
        client = aws_client("dynamodb", server.url)
        make_table(client, "one")
        client.put_item(TableName="one", Item={"symbol": {"S": "X"}})
        server.kill()
        server.start()
        assert client.scan(TableName="one")["Count"] == 1
