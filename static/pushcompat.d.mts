/** Types of pushcompat.mjs. */

import * as api from "./pushcompat.js";

export * from "./pushcompat.js";
export default api;
