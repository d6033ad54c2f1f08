/* follow.mjs URL OPTIONS: follows a channel as a service does, and logs each state and message; ends after "last". */
import { subscribe } from "pushcompat";

const [url, options] = (globalThis.Deno ? globalThis.Deno.args : process.argv.slice(2)).map(String);
const say = (...words) => console.log(words.join(" "));
const subscription = subscribe(url, {
  ...JSON.parse(options || "{}"),
  onState: ({ state, transport }) => say("state", state, transport || "")
});
for await (const { data } of subscription) {
  say("message", data);
  if (data === "last") break;
}
