import { mount } from "svelte";

import Comments from "./Svelte.svelte";

mount(Comments, { target: document.getElementById("app") });
