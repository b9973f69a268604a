/** The page by itself: it asks by POST, and is told through one long answer. */

import { openExplorer } from "./explorer.js";

const GONE = "The command that serves this page does not answer. Is it still running?";

class ServedLink {
  constructor() {
    this.calls = new Set();
    this.sending = this.opened = new Promise((resolve) => (this.open = resolve));
    this.run().catch(() => this.tell({ kind: "gone", text: GONE }, []));
  }

  /** Send a message, after all that were sent before. */
  ask(content, buffers) {
    const body = packed(content, buffers);
    this.sending = this.sending.then(() => fetch("ask", { method: "POST", body })).catch(() => {});
  }

  listen(call) {
    this.calls.add(call);
    return () => this.calls.delete(call);
  }

  async plotly() {
    return (await fetch("plotly.min.js")).blob();
  }

  tell(content, buffers) {
    this.calls.forEach((call) => call(content, buffers));
  }

  async run() {
    const response = await fetch("events");
    this.open();
    const bytes = new Bytes(response.body.getReader());
    for (;;) {
      const length = new DataView((await bytes.take(4)).buffer).getUint32(0, true);
      const content = JSON.parse(new TextDecoder().decode(await bytes.take(length)));
      const buffers = [];
      for (const size of content.lengths) buffers.push(await bytes.take(size));
      this.tell(content, buffers);
      if (content.kind === "gone") return;
    }
  }
}

/** A stream, so many bytes at a time. */
class Bytes {
  chunks = [];
  size = 0;

  constructor(reader) {
    this.reader = reader;
  }

  async take(length) {
    while (this.size < length) {
      const { done, value } = await this.reader.read();
      if (done) throw new Error("the stream has ended");
      this.chunks.push(value);
      this.size += value.length;
    }
    const taken = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const [first] = this.chunks;
      const part = first.subarray(0, length - filled);
      taken.set(part, filled);
      filled += part.length;
      if (part.length === first.length) this.chunks.shift();
      else this.chunks[0] = first.subarray(part.length);
    }
    this.size -= length;
    return taken;
  }
}

/** The length of the JSON (uint32, little-endian), the JSON with the buffers' lengths, the buffers. */
function packed(content, buffers) {
  const lengths = buffers.map((buffer) => buffer.byteLength);
  const text = new TextEncoder().encode(JSON.stringify({ ...content, lengths }));
  const head = new DataView(new ArrayBuffer(4));
  head.setUint32(0, text.length, true);
  return new Blob([head, text, ...buffers]);
}

openExplorer(new ServedLink(), document.querySelector("main"));
