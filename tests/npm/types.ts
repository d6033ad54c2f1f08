// Components in TypeScript. Read by the compiler only: what is right must pass, and what is wrong must not.
import push, { subscribe, UpdateCheckSocket } from "pushcompat";
import type { Message, StateChange, Subscription } from "pushcompat";
import { useChannel } from "pushcompat/react";
import type { ChannelStatus } from "pushcompat/react";
import { channel } from "pushcompat/svelte";
import { useChannel as useInVue } from "pushcompat/vue";
import { ref } from "vue";

interface Order {
  number: number;
}

const controller = new AbortController();
const subscription: Subscription<Order> = subscribe<Order>(new URL("https://push.example/channels/orders"), {
  signal: controller.signal,
  onState: (change: StateChange) => change.state === "open" && change.transport.length,
  env: { fetch, WebSocket },
});
subscription.on("new", (message) => message.data.number.toFixed()).close();
push.subscribe("/channels/orders");
new UpdateCheckSocket("push.example", 8888, "/channels/chat", document.body).close();

export async function first(): Promise<Order | null> {
  for await (const message of subscription) return message.data;
  return null;
}

const inReact: ChannelStatus<Order> = useChannel<Order>("/channels/orders", { onMessage: ({ data }) => data.number });
useChannel(null);
useChannel("/channels/orders", (message: Message<Order>) => message.data.number);
const number: number | undefined = inReact.message?.data.number;

const room = ref<string | null>("chat");
const inVue = useInVue<Order>(() => room.value && `/channels/${room.value}`, { last: number });
useInVue(room);
const state: "connecting" | "open" | "waiting" | "closed" = inVue.value.state;

const stop: () => void = channel<Order>("/channels/orders").subscribe((status) => status.message?.data.number);
channel(null).subscribe(({ reason }) => [reason?.length, state, stop]);

// @ts-expect-error a URL is needed
useChannel();
// @ts-expect-error there is no such option
useChannel("/channels/orders", { onmessage: () => undefined });
// @ts-expect-error the status is not for setting
inVue.value = inReact;
// @ts-expect-error of orders, data has no text
channel<Order>("/channels/orders", { onMessage: (message) => message.data.text });
// @ts-expect-error there is no such entry point
import("pushcompat/follow");
