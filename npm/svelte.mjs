/* pushcompat/svelte */
import { CLOSED, CONNECTING, follow, optionsOf } from "./follow.mjs";

export function channel(url, options) {
  const given = optionsOf(options), followers = new Set(), initial = url ? CONNECTING : CLOSED;
  let status = initial, close = null;
  function set(change) {
    status = {...status, ...change};
    followers.forEach((follower) => follower.tell(status));
  }
  return {
    subscribe(tell) {
      const follower = {tell}; // the same function may follow twice
      followers.add(follower);
      if (url && !close && typeof document !== "undefined") close = follow(url, () => given, set); // not on a server
      tell(status);
      return () => {
        followers.delete(follower);
        if (followers.size || !close) return;
        close();
        close = null;
        status = initial;
      };
    }
  };
}
