// A page in TypeScript. Read by the compiler only: what is right must pass, and what is wrong must not.
import push, { subscribe, UpdateCheckSocket } from "../../static/pushcompat.mjs";
import type { Message, Reset, StateChange, Subscription } from "../../static/pushcompat.js";

interface Order {
  number: number;
}

const subscription: Subscription = subscribe<Order>("/channels/orders", {
  onMessage: (message) => message.data.number.toFixed() + message.id + (message.type ?? ""),
  onReset: (reset: Reset) => reset.channels.join(),
  onState: ({ state, transport, reason }: StateChange) => state === "open" && transport.length > 0 && !reason,
  cursor: "earliest",
  token: async () => "t1",
  transports: ["websocket", "longpoll"],
  shareTabs: false,
  withCredentials: true,
  upgradeAfter: [1000],
  retryMax: undefined,
  env: { WebSocket: null, now: () => 0 },
});
subscription.add("news", "sport");
subscription.remove("news");
const where: string = subscription.cursor;
subscription.close();

const orders = subscribe<Order>("/channels/orders", { last: 20, signal: undefined, debug: true });
orders.on("new", (message) => message.data.number.toFixed()).on<string>("note", (message) => message.data.trim());
export async function sum(): Promise<number> {
  let total = 0;
  for await (const message of orders) total += message.data.number;
  return total;
}

const url = { href: "https://push.example/channels/chat" }; // as a URL
push.subscribe(url, { token: (done) => done(where) });
PushCompat.subscribe("/channels/chat", { token: "t1", onMessage: (message: Message<string>) => message.data.trim() });
new UpdateCheckSocket("push.example", 8888, "/channels/chat", { textContent: "" }, () => undefined).send("NOOP");

// @ts-expect-error a channel's address is needed
subscribe();
// @ts-expect-error there is no such transport
subscribe("/channels/chat", { transports: ["flash"] });
// @ts-expect-error there is no such option
subscribe("/channels/chat", { onmessage: () => undefined });
// @ts-expect-error the state is the client's
subscription.state = "open";
// @ts-expect-error a handler takes a message
orders.on("new", (message: string) => message);
// @ts-expect-error of orders, data has no text
subscribe<Order>("/channels/orders", { onMessage: (message) => message.data.text });
