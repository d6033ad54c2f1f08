/** Types of pushcompat.js. Times are in milliseconds unless something else is said. */

export as namespace PushCompat;

/** A place in the server's log: opaque text. What has a place can be resumed from it, on any transport, at any time. */
export type Cursor = string;

export type Transport = "websocket" | "eventsource" | "longpoll";

/**
 * - `connecting`: transports are being tried
 * - `open`: updates arrive
 * - `waiting`: nothing got through, or the page was left; the next try comes by itself
 * - `closed`: for good, by the page or because the server refused
 */
export type State = "connecting" | "open" | "waiting" | "closed";

/** What was published, in the server's envelope. */
export interface Message<Data = any> {
  /** The message's cursor. */
  readonly id: Cursor;
  readonly channel: string;
  /** What was published as JSON, parsed, or a string. `"UPDATED"` is the bare signal. */
  readonly data: Data;
  /** Milliseconds since 1970, by the server's clock, when the log took it. */
  readonly time: number;
  /** If the publisher gave one. */
  readonly type?: string;
  /** If the publisher gave one: of messages with the same key only the latest matters. */
  readonly key?: string;
  /** The callback was made at a random moment within so many ms, so that not all pages refetch at once. */
  readonly spread?: number;
}

/** Messages of these channels were lost: look again at whatever they told about. */
export interface Reset {
  readonly control: "reset";
  /** What follows lies after this. */
  readonly cursor: Cursor;
  readonly channels: readonly string[];
  /** As in a message. */
  readonly spread?: number;
}

export interface StateChange {
  readonly state: State;
  /** In use; null unless `open`. */
  readonly transport: Transport | null;
  /** A sentence: why another transport is not in use, or why the last one was left. */
  readonly reason: string | null;
}

/**
 * Asked for a token before connecting, and again when the server refused it: returns it or a promise of it, or calls
 * `done` with it. `null` and `""` mean none.
 */
export type TokenSource = (done: (token: string | null) => void) => string | null | void | PromiseLike<string | null>;

export interface Options<Data = any> {
  onMessage?: (message: Message<Data>) => void;
  /** Messages were lost: refetch. */
  onReset?: (reset: Reset) => void;
  onState?: (change: StateChange) => void;
  /** Go on after this one, or `"earliest"`: all that the server has kept. Default: from now. */
  cursor?: Cursor | "earliest";
  /** Sent in the query. A string that the server refuses ends the subscription. Default: none. */
  token?: string | TokenSource;
  /** Which to use, the best first. Default: `["websocket", "eventsource", "longpoll"]`. */
  transports?: readonly Transport[];
  /** Tabs with the same URL, token and transports share one connection, where the browser can. Default: true. */
  shareTabs?: boolean;
  /** When a transport says nothing for so many ms, the next is started beside it. Default: 2500. */
  stagger?: number;
  /** A connection that delivered nothing for so many ms is given up. Default: 10000. */
  openTimeout?: number;
  /** Backoff is a random time up to so many ms, doubled with each failure … Default: 500. */
  retryMin?: number;
  /** … up to so many ms. Default: 30000. */
  retryMax?: number;
  /** For so many ms the transport that worked is tried first, also by the next page. Default: 1800000 (30 min). */
  rememberFor?: number;
  /** Better transports are tried again after these ms; the last repeats. Default: `[60000, 300000, 1800000]`. */
  upgradeAfter?: readonly number[];
  /** A transport of which so many connections in a row did not last goes behind the others. Default: 3. */
  failures?: number;
  /** Replaces what the client uses of its surroundings. For tests. */
  env?: Partial<Environment>;
}

/** Of a browser; each may be null where it is missing, but for the timers. */
export interface Environment {
  WebSocket: unknown;
  EventSource: unknown;
  XMLHttpRequest: unknown;
  BroadcastChannel: unknown;
  /** `navigator.locks` */
  locks: unknown;
  /** `localStorage` */
  storage: unknown;
  location: unknown;
  document: unknown;
  /** `window`, as the target of events */
  page: unknown;
  setTimeout(action: () => void, ms: number): unknown;
  clearTimeout(id: unknown): void;
  /** Milliseconds since 1970. */
  now(): number;
  /** From 0 to 1. */
  random(): number;
}

export interface Subscription {
  readonly state: State;
  /** In use; null unless `open`. */
  readonly transport: Transport | null;
  /** Where it stands: what a later subscription can go on from. Empty until the server has said it. */
  readonly cursor: Cursor;
  readonly channels: readonly string[];
  /** Follows more channels, from the cursor on. */
  add(...names: string[]): void;
  /** Follows fewer. Of the others nothing is lost. */
  remove(...names: string[]): void;
  /** Ends it for good. */
  close(): void;
}

/**
 * Follows one channel or several on the best transport that gets through, and goes on where it was after every cut.
 *
 * @param url `/channels/NAME[,NAME…]`, absolute or relative to the page; may have a query of its own
 */
export function subscribe<Data = any>(url: string, options?: Options<Data>): Subscription;

/** The class of 2009, as a drop-in: shows what comes; calls back for each `UPDATED`, and when updates were missed. */
export class UpdateCheckSocket {
  /** @param resource a channel's path, like `/channels/chat` */
  constructor(
    host: string,
    port: number | string,
    resource: string,
    statusElement?: { textContent: string | null } | null,
    callback?: (() => void) | null
  );
  /** For the NOOPs that kept NAT from forgetting the connection. They are no longer needed, and go nowhere. */
  send(text?: string): void;
  close(): void;
}
