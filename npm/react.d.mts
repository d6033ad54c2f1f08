import type { ChannelOptions, ChannelStatus } from "./follow.mjs";
import type { Url } from "./pushcompat.mjs";

export type { ChannelOptions, ChannelStatus };

/**
 * Follows a channel, or several, while the component is mounted. `null` follows none. Callbacks are those of the last
 * render. A change of the URL, or of a token that is text, subscribes anew; other options count when it subscribes.
 */
export function useChannel<Data = any>(
  url: string | Url | null | undefined,
  options?: ChannelOptions<Data>
): ChannelStatus<Data>;
