/* What the entry points for frameworks share. */
import { subscribe } from "./pushcompat.mjs";

export const CONNECTING = {state: "connecting", transport: null, reason: null, message: null};
export const CLOSED = {...CONNECTING, state: "closed"};

export function optionsOf(given) {
  return typeof given === "function" ? {onMessage: given} : given || {};
}

/** Subscribes; `options()` are those of the moment, `tell(change)` is called for each state and message. Returns `close`. */
export function follow(url, options, tell) {
  let isLive = true; // nothing is told after close(), which changes the state
  const listener = (name, change) => (argument) => {
    if (!isLive) return;
    tell(change(argument));
    const callback = options()[name];
    if (callback) callback(argument);
  };
  const subscription = subscribe(url, {
    ...options(),
    onMessage: listener("onMessage", (message) => ({message})),
    onReset: listener("onReset", () => ({})),
    onState: listener("onState", (change) => change)
  });
  return () => {
    isLive = false;
    subscription.close();
  };
}
