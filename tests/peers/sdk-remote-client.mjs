// A client made of the official TypeScript SDK's remote transports: sends each
// prompt in one session of a server, and prints what it saw as one JSON object.
//
//   ACPBOX_TOKEN=… node tests/peers/sdk-remote-client.mjs websocket|http URL CWD PROMPT…
//
// It offers nothing, allows everything once, and checks nothing: the test that
// runs it does.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are in target/peers and not beside this file.
const require = createRequire(new URL("../../target/peers/package.json", import.meta.url));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const acp = await load("@agentclientprotocol/sdk");

// A server that does not answer shall not keep a test.
setTimeout(() => process.exit(3), 120_000).unref();

const [transport, url, cwd, ...prompts] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${process.env.ACPBOX_TOKEN}` };
let stream;
if (transport === "websocket") {
  const { createWebSocketStream } = await load("@agentclientprotocol/sdk/experimental/ws-client");
  const WebSocket = require("ws");
  stream = createWebSocketStream(url, { WebSocket, headers });
} else {
  const { createHttpStream } = await load("@agentclientprotocol/sdk/experimental/http-client");
  stream = createHttpStream(url, { headers });
}

const seen = { updates: [], permissions: [], turns: [] };
const { methods } = acp;
const client = acp
  .client({ name: "acpbox-sdk-remote-client" })
  .onRequest(methods.client.session.requestPermission, ({ params }) => {
    seen.permissions.push(params.toolCall.title ?? null);
    const allow = params.options.find((option) => option.kind === "allow_once");
    return { outcome: { outcome: "selected", optionId: allow.optionId } };
  })
  .onNotification(methods.client.session.update, ({ params }) => {
    seen.updates.push(params.update);
  });

await client.connectWith(stream, async (connection) => {
  seen.initialize = await connection.request(methods.agent.initialize, {
    protocolVersion: acp.PROTOCOL_VERSION,
    clientCapabilities: {},
    clientInfo: { name: "acpbox-sdk-remote-client", version: "0" },
  });
  seen.session = await connection.request(methods.agent.session.new, { cwd, mcpServers: [] });
  const { sessionId } = seen.session;
  for (const text of prompts) {
    const prompt = [{ type: "text", text }];
    seen.turns.push(await connection.request(methods.agent.session.prompt, { sessionId, prompt }));
  }
  const chunks = (updates) => updates.filter((update) => update.sessionUpdate === "agent_message_chunk").length;
  const before = seen.updates.length;
  await connection.request(methods.agent.session.load, { sessionId, cwd, mcpServers: [] });
  // The answer may come on another stream than what it is about.
  while (chunks(seen.updates) < 2 * chunks(seen.updates.slice(0, before))) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  seen.replayed = seen.updates.splice(before);
});
console.log(JSON.stringify(seen));
