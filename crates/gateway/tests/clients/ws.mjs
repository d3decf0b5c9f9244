// A client on the npm package `ws`: prints every message of a gateway as a line.
// node ws.mjs URL [COMMAND]
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../../.test/", import.meta.url));
const WebSocket = require("ws");

const [url, command] = process.argv.slice(2);
const socket = new WebSocket(url);
socket.on("open", () => command && socket.send(command));
socket.on("message", (data) => process.stdout.write(`${data}\n`));
socket.on("close", (code, reason) => process.stderr.write(`closed: ${code} ${reason}\n`));
