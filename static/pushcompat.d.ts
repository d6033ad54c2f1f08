/// <reference lib="es2018.asynciterable" />
/** Types of pushcompat.js. Times are in milliseconds unless something else is said. */

export as namespace PushCompat;

/** Opaque position in the server's log; can be used to resume on any transport. */
export type Cursor = string;

export type Transport = "websocket" | "eventsource" | "longpoll";

/**
 * - `connecting`: transports are being tried
 * - `open`: connected
 * - `waiting`: disconnected, or the page was left; the client reconnects automatically
 * - `closed`: permanently, by the page or because the server refused
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
  /** The callback was delayed by a random time up to this (ms), so that not all pages refetch at once. */
  readonly spread?: number;
}

/** Messages of these channels were lost: refetch. */
export interface Reset {
  readonly control: "reset";
  /** Delivery continues after this. */
  readonly cursor: Cursor;
  readonly channels: readonly string[];
  /** As in a message. */
  readonly spread?: number;
}

/** `reason` is a sentence: why a better transport is not used, or why the last connection ended. */
export type StateChange =
  | { readonly state: "open"; readonly transport: Transport; readonly reason: string | null }
  | { readonly state: Exclude<State, "open">; readonly transport: null; readonly reason: string | null };

/**
 * Called before connecting, and again when the server refused the token: returns it or a promise of it, or calls `done`
 * with it. `null` and `""` mean none.
 */
export type TokenSource = (done: (token: string | null) => void) => string | null | void | PromiseLike<string | null>;

export interface Options<Data = any> {
  onMessage?: ((message: Message<Data>) => void) | undefined;
  /** Messages were lost: refetch. */
  onReset?: ((reset: Reset) => void) | undefined;
  onState?: ((change: StateChange) => void) | undefined;
  /** Resume after this, or `"earliest"` for all retained messages. Default: from now. */
  cursor?: Cursor | "earliest" | undefined;
  /** Without a cursor: begin with at most so many of the retained messages, the newest of all the channels together. */
  last?: number | undefined;
  /** Closes the subscription when it aborts. */
  signal?: Signal | undefined;
  /** Logs connections, states and messages to the console. Default: whether localStorage has `pushcompat.debug`. */
  debug?: boolean | undefined;
  /** Sent in the query. A string that is refused closes the subscription. */
  token?: string | TokenSource | undefined;
  /** Which to use, the best first. Default: `["websocket", "eventsource", "longpoll"]`. */
  transports?: Transport | readonly Transport[] | undefined;
  /** Tabs with the same server, query, token and options share one connection, where the browser can. Default: true. */
  shareTabs?: boolean | undefined;
  /** Cookies are sent to a server of another origin too. Default: false. */
  withCredentials?: boolean | undefined;
  /** Delay (ms) before the next transport is started in parallel with one that has delivered nothing. Default: 2500. */
  stagger?: number | undefined;
  /** A connection that has delivered nothing after this time (ms) is closed. Default: 10000. */
  openTimeout?: number | undefined;
  /** Backoff is a random delay up to this (ms), doubled with each failure … Default: 500. */
  retryMin?: number | undefined;
  /** … up to this (ms). Default: 30000. */
  retryMax?: number | undefined;
  /** How long (ms) the last working transport is remembered and tried first. Default: 1800000 (30 min). */
  rememberFor?: number | undefined;
  /** Better transports are tried again after these ms; the last repeats. Default: `[60000, 300000, 1800000]`. */
  upgradeAfter?: readonly number[] | undefined;
  /** Number of short-lived connections in a row after which a transport is tried last. Default: 3. */
  failures?: number | undefined;
  /** Overrides browser APIs, for tests and for Node.js. */
  env?: Partial<Environment> | undefined;
}

/** Browser APIs; each may be null if unsupported, except the timers. */
export interface Environment {
  WebSocket: unknown;
  EventSource: unknown;
  XMLHttpRequest: unknown;
  /** For long-polls where there is no XMLHttpRequest. */
  fetch: unknown;
  BroadcastChannel: unknown;
  /** `navigator.locks` */
  locks: unknown;
  /** `navigator.permissions` */
  permissions: unknown;
  console: unknown;
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

/** An `AbortSignal`. */
export interface Signal {
  readonly aborted: boolean;
  addEventListener(type: "abort", listener: () => void): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** A `URL`, or the page's `location`. */
export interface Url {
  readonly href: string;
}

/**
 * `for await (const message of subscription)` takes the messages from then on. Leaving the loop closes the subscription;
 * the loop ends when it is closed, with an Error if the server has refused it.
 */
export interface Subscription<Data = any> extends AsyncIterable<Message<Data>> {
  readonly state: State;
  /** In use; null unless `open`. */
  readonly transport: Transport | null;
  /** A later subscription can resume from it. Until the server has named a position it is what was asked for. */
  readonly cursor: Cursor | "earliest";
  readonly channels: readonly string[];
  /** Follows more channels, from the cursor on. */
  add(...names: string[]): void;
  /** Follows fewer. Of the others nothing is lost. */
  remove(...names: string[]): void;
  /** Calls the handler for messages of this type, beside `onMessage`. */
  on<Typed = Data>(type: string, handler: (message: Message<Typed>) => void): this;
  off(type: string, handler: (message: Message<any>) => void): this;
  /** Closes it permanently. */
  close(): void;
}

/**
 * Follows one channel or several on the best transport that works, and resumes after every disconnect.
 *
 * @param url `/channels/NAME[,NAME…]`, absolute or relative to the page's base; may have a query of its own
 * @throws Error if it can never work: no server, no channel, or an invalid name
 */
export function subscribe<Data = any>(url: string | Url, options?: Options<Data>): Subscription<Data>;

/** Compatibility class with the API of 2009: shows messages; calls back for `UPDATED`, and if updates were missed. */
export class UpdateCheckSocket {
  /** @param resource a channel's path, like `/channels/chat` */
  constructor(
    host: string,
    port: number | string,
    resource: string,
    statusElement?: { textContent: string | null } | null,
    callback?: (() => void) | null
  );
  /** For the NOOPs that kept NAT entries alive. They are no longer needed, and are not sent. */
  send(text?: string): void;
  close(): void;
}
