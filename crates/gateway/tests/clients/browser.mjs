// What a page does, and nothing else: prints every message of a gateway as a line.
// node browser.mjs URL
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../../.test/", import.meta.url));
// Node has the WebSocket of browsers from version 22 on; before that it comes from where Node has it from.
const WebSocket = globalThis.WebSocket ?? require("undici").WebSocket;

const socket = new WebSocket(process.argv[2]);
socket.onmessage = (event) => process.stdout.write(`${event.data}\n`);
socket.onclose = (event) => process.stderr.write(`closed: ${event.code} ${event.reason}\n`);
