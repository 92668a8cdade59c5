// The one websocket of this tab. ask() sends a question and calls back for each message that answers it.

const waiting = new Map(), latest = new Map(); // who waits for which question; the latest question of each lane
const BUSY = "Waiting: the server computes for another tab, or compiles its kernels (half a minute, the first time only) …";
let socket = null, next = 1, unsent = [], status = () => {};

/** Open the websocket, and again whenever it closes; `tell(text, wrong)` says how it goes, `opened()` is called each time. */
export function connect(tell, opened) {
  status = tell;
  // the token, where there is one, is in a cookie that the page's own answer has set
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.addEventListener("open", () => {
    status("");
    for (const text of unsent.splice(0)) socket.send(text);
    opened();
  });
  socket.addEventListener("message", (event) => take(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    status("The server does not answer. Trying again …", true);
    for (const answer of waiting.values()) answer({ kind: "error", message: "the connection was lost" });
    waiting.clear();
    setTimeout(() => connect(tell, opened), 1500);
  });
}

function take(message) {
  const answer = waiting.get(message.id);
  if (message.kind === "error") status(message.message, true);
  if (["done", "answer", "error", "cancelled"].includes(message.kind)) waiting.delete(message.id);
  answer?.(message);
}

function send(message) {
  const text = JSON.stringify(message);
  if (socket?.readyState === WebSocket.OPEN) socket.send(text);
  else unsent.push(text);
}

/** Ask for something that is computed. What was asked before in the same lane is given up, here and on the server. */
export function ask(doing, lane, values, answer) {
  const id = next++;
  status("");
  if (lane !== null) {
    waiting.delete(latest.get(lane)); // that its end is still to come concerns nobody
    latest.set(lane, id);
  }
  let begun = false;
  waiting.set(id, (message) => {
    if (!begun && message.kind === "begun") status("");
    begun = true;
    answer(message);
  });
  setTimeout(() => { if (!begun && waiting.has(id)) status(BUSY); }, 2000);
  send({ ...values, id, do: doing, ...(lane === null ? {} : { lane }) });
}

export function cancel(lane) {
  send({ id: next++, do: "cancel", lane });
}

/** Ask for something that is known at once: a promise of the answer, which fails with the server's message. */
export function askOnce(doing, values = {}) {
  return new Promise((resolve, reject) => {
    ask(doing, null, values, (message) => (message.kind === "answer" ? resolve(message) : reject(new Error(message.message))));
  });
}
