// A client made of the official TypeScript SDK: starts an agent, sends each
// prompt in one session, and prints what it saw as one JSON object.
//
//   node tests/peers/sdk-client.mjs CWD PROMPT… -- COMMAND ARGUMENT…
//
// It offers files (of its own process) and no terminals, allows everything once,
// and checks nothing: the test that runs it does.

import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { Readable, Writable } from "node:stream";
import { pathToFileURL } from "node:url";

// The packages are in target/peers and not beside this file.
const require = createRequire(new URL("../../target/peers/package.json", import.meta.url));
const acp = await import(pathToFileURL(require.resolve("@agentclientprotocol/sdk")));

const split = process.argv.indexOf("--");
const [cwd, ...prompts] = process.argv.slice(2, split);
const [command, ...args] = process.argv.slice(split + 1);
const agent = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
const stream = acp.ndJsonStream(Writable.toWeb(agent.stdin), Readable.toWeb(agent.stdout));

const seen = { updates: [], permissions: [], files: [], turns: [] };
const { methods } = acp;
const client = acp
  .client({ name: "acpbox-sdk-client" })
  .onRequest(methods.client.session.requestPermission, ({ params }) => {
    seen.permissions.push(params.toolCall.title ?? null);
    const allow = params.options.find((option) => option.kind === "allow_once");
    return { outcome: { outcome: "selected", optionId: allow.optionId } };
  })
  .onRequest(methods.client.fs.readTextFile, async ({ params }) => {
    seen.files.push(`read ${params.path}`);
    return { content: await readFile(params.path, "utf8") };
  })
  .onRequest(methods.client.fs.writeTextFile, async ({ params }) => {
    seen.files.push(`write ${params.path}`);
    await writeFile(params.path, params.content);
    return {};
  })
  .onNotification(methods.client.session.update, ({ params }) => {
    seen.updates.push(params.update);
  });

await client.connectWith(stream, async (connection) => {
  seen.initialize = await connection.request(methods.agent.initialize, {
    protocolVersion: acp.PROTOCOL_VERSION,
    clientCapabilities: { fs: { readTextFile: true, writeTextFile: true } },
    clientInfo: { name: "acpbox-sdk-client", version: "0" },
  });
  seen.session = await connection.request(methods.agent.session.new, { cwd, mcpServers: [] });
  for (const text of prompts) {
    seen.turns.push(
      await connection.request(methods.agent.session.prompt, {
        sessionId: seen.session.sessionId,
        prompt: [{ type: "text", text }],
      }),
    );
  }
});

agent.stdin.end();
seen.exit = await new Promise((resolve) => {
  if (agent.exitCode !== null) resolve(agent.exitCode);
  agent.on("exit", (code, signal) => resolve(signal ?? code));
});
console.log(JSON.stringify(seen));
