/* pushcompat/vue */
import { getCurrentInstance, onMounted, shallowRef, toValue, watch } from "vue";
import { CLOSED, CONNECTING, follow, optionsOf } from "./follow.mjs";

export function useChannel(url, options) {
  const given = optionsOf(options);
  const status = shallowRef(toValue(url) ? CONNECTING : CLOSED);
  function start(address, _, onCleanup) {
    status.value = address ? CONNECTING : CLOSED;
    if (address) onCleanup(follow(address, () => given, (change) => { status.value = {...status.value, ...change}; }));
  }
  const run = () => watch(() => toValue(url), start, {immediate: true});
  if (getCurrentInstance()) onMounted(run); // which a server does not do
  else run();
  return status;
}
