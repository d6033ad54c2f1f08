import type { MaybeRefOrGetter, ShallowRef } from "vue";
import type { ChannelOptions, ChannelStatus } from "./follow.mjs";
import type { Url } from "./pushcompat.mjs";

export type { ChannelOptions, ChannelStatus };

/**
 * Follows a channel, or several, while the component is mounted, or until the effect scope ends. A change of the URL
 * subscribes anew; `null` follows none.
 */
export function useChannel<Data = any>(
  url: MaybeRefOrGetter<string | Url | null | undefined>,
  options?: ChannelOptions<Data>
): Readonly<ShallowRef<ChannelStatus<Data>>>;
