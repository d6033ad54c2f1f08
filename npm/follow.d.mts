import type { Message, Options, State, Transport } from "./pushcompat.mjs";

/** A subscription as a component sees it. */
export interface ChannelStatus<Data = any> {
  readonly state: State;
  /** In use; null unless `open`. */
  readonly transport: Transport | null;
  /** A sentence: why a better transport is not used, or why the last connection ended. */
  readonly reason: string | null;
  /** The last one. Two may come before a component is rendered: `onMessage` gets each. */
  readonly message: Message<Data> | null;
}

/** Options of `subscribe`, or its `onMessage`. */
export type ChannelOptions<Data = any> = Options<Data> | ((message: Message<Data>) => void) | undefined;
