import type { ChannelOptions, ChannelStatus } from "./follow.mjs";
import type { Url } from "./pushcompat.mjs";

export type { ChannelOptions, ChannelStatus };

/** A readable store by Svelte's contract. */
export interface ChannelStore<Data = any> {
  subscribe(run: (status: ChannelStatus<Data>) => void): () => void;
}

/**
 * Follows a channel, or several, while the store has subscribers; `null` follows none. On a server it stays
 * `connecting`.
 */
export function channel<Data = any>(
  url: string | Url | null | undefined,
  options?: ChannelOptions<Data>
): ChannelStore<Data>;
