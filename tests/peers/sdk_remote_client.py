# A client made of the official Python SDK: sends each prompt in one session of a
# server, and prints what it saw as one JSON object.
#
#   ACPBOX_TOKEN=… python sdk_remote_client.py websocket|http|unix ADDRESS CWD PROMPT…
#
# ADDRESS is a URL, or the path of a socket. It offers nothing, allows everything
# once, and checks nothing: the test that runs it does.

import asyncio
import json
import os
import sys

import acp
from acp import schema

# More than any line of a test; asyncio's own limit is 64 KiB.
LINE_BYTES = 16 * 1024 * 1024


def dump(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def chunks(updates):
    return sum(update["sessionUpdate"] == "agent_message_chunk" for update in updates)


class Client(acp.Client):
    def __init__(self):
        self.updates = []
        self.permissions = []

    async def session_update(self, session_id, update, **kwargs):
        self.updates.append(dump(update))

    async def request_permission(self, session_id, tool_call, options, **kwargs):
        self.permissions.append(tool_call.title)
        allow = next(option for option in options if option.kind == "allow_once")
        outcome = schema.AllowedOutcome(outcome="selected", option_id=allow.option_id)
        return schema.RequestPermissionResponse(outcome=outcome)


async def connect(client, transport, address):
    if transport == "unix":
        reader, writer = await asyncio.open_unix_connection(address, limit=LINE_BYTES)
        return acp.connect_to_agent(client, writer, reader)
    headers = {"Authorization": f"Bearer {os.environ['ACPBOX_TOKEN']}"}
    if transport == "websocket":
        from acp.ws.client import create_websocket_stream

        stream = await create_websocket_stream(address, headers=headers)
    else:
        from acp.http.client import create_http_stream

        stream = create_http_stream(address, headers=headers)
    return acp.connect_to_agent(client, stream)


async def begin(transport, address):
    client = Client()
    connection = await connect(client, transport, address)
    initialized = await connection.initialize(
        protocol_version=acp.PROTOCOL_VERSION,
        client_info=schema.Implementation(name="acpbox-sdk-remote-client", version="0"),
    )
    return client, connection, dump(initialized)


async def main(transport, address, cwd, *prompts):
    seen = {"turns": []}
    client, connection, seen["initialize"] = await begin(transport, address)
    session = await connection.new_session(cwd=cwd, mcp_servers=[])
    seen["session"] = dump(session)
    session_id = session.session_id
    for text in prompts:
        turn = await connection.prompt(session_id=session_id, prompt=[acp.text_block(text)])
        seen["turns"].append(dump(turn))
    seen["updates"], seen["permissions"] = client.updates, client.permissions
    await connection.close()
    # It comes back on another connection, where it has no stream of the session yet.
    client, connection, _ = await begin(transport, address)
    await connection.load_session(cwd=cwd, session_id=session_id, mcp_servers=[])
    while chunks(client.updates) < chunks(seen["updates"]):
        await asyncio.sleep(0.02)
    seen["replayed"] = client.updates
    await connection.close()
    print(json.dumps(seen))


# A server that does not answer shall not keep a test.
asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 120))
