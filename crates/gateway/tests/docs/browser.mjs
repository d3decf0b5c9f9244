// What a page in a browser has and Node may lack. A script that listens for ever ends once it has seen what it waits for.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.PACKAGES}/`);
const { WebSocket } = require("undici");
const isEnd = {
  open: ({ type }) => type === "open",
  publication: ({ type, data }) => type === "message" && !("type" in JSON.parse(data)),
}[process.env.UNTIL];

globalThis.WebSocket = class extends WebSocket {
  constructor(...words) {
    super(...words);
    for (const kind of ["open", "message"]) {
      // After the script's own listeners.
      this.addEventListener(kind, (event) => isEnd(event) && setTimeout(() => process.exit(0)));
    }
    this.addEventListener("error", ({ error }) => {
      console.error("the connection failed:", error);
      process.exit(1);
    });
  }
};

// The documents say: `show` is yours.
globalThis.show = (...values) => console.log(...values);

// As much of a document as shows a value.
globalThis.document = {
  getElementById: (id) => ({
    set textContent(text) {
      console.log(id, text);
    },
  }),
};
