/* pushcompat/react */
import { useEffect, useRef, useState } from "react";
import { CLOSED, CONNECTING, follow, optionsOf } from "./follow.mjs";

export function useChannel(url, options) {
  const address = url ? url.href || url : null;
  const token = options && typeof options.token === "string" ? options.token : null;
  const initial = address ? CONNECTING : CLOSED;
  const latest = useRef(null);
  const [status, setStatus] = useState(initial);
  useEffect(() => { latest.current = optionsOf(options); });
  useEffect(() => {
    setStatus(initial);
    if (!address) return undefined;
    return follow(address, () => latest.current, (change) => setStatus((before) => ({...before, ...change})));
  }, [address, token]);
  return status;
}
