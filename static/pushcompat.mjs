// pushcompat.js as an ES module. The import runs that file, which leaves its API in `module.exports` or on the global.
import * as umd from "./pushcompat.js";

const api = umd.default || globalThis.PushCompat;

export const subscribe = api.subscribe;
export const UpdateCheckSocket = api.UpdateCheckSocket;
export default api;
