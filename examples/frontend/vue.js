import { createApp } from "vue";

import Comments from "./Vue.vue";

createApp(Comments).mount("#app");
