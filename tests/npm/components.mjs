/* A page for each framework, bundled into one script: `pages.react.mount(element)` … and what happened in them. */
import { createElement as h, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { mount as mountSvelte, unmount } from "svelte";
import { createApp, h as element, ref } from "vue";
import { useChannel } from "pushcompat/react";
import { useChannel as useInVue } from "pushcompat/vue";
import Svelte from "./page.svelte";

const NAMES = ["one", "one", "two"]; // of the channels that the page follows, by step
const seen = (window.seen = []);
const states = (window.states = []);
const problems = (window.problems = []);
window.onerror = (message) => problems.push(message);
console.error = console.warn = (...words) => problems.push(words.join(" "));

const address = (framework, step) => (NAMES[step] ? `/channels/${framework}-${NAMES[step]}` : null);
const shown = ({ state, message }, step) => `${step}: ${state} ${message ? message.data : "nothing"}`;

/** `step()` is the one of the moment. */
const callbacks = (step) => ({
  onMessage: ({ data }) => seen.push(`${data} at step ${step()}`),
  onState: ({ state }) => states.push(state)
});

/** Each has two components, which follow the same channel; at step 3 none. */
const react = {
  mount(target) {
    function Chat({ step }) {
      const status = useChannel(address("react", step), callbacks(() => step));
      return h("p", null, shown(status, step));
    }
    function Page() {
      const [step, setStep] = useState(0);
      react.go = setStep;
      return h("div", null, h(Chat, { step }), h(Chat, { step }));
    }
    const root = createRoot(target);
    root.render(h(StrictMode, null, h(Page)));
    react.unmount = () => root.unmount();
  }
};

const vue = {
  mount(target) {
    const step = ref(0);
    const Chat = {
      setup() {
        const status = useInVue(() => address("vue", step.value), callbacks(() => step.value));
        return () => element("p", shown(status.value, step.value));
      }
    };
    vue.go = (to) => { step.value = to; };
    const app = createApp({ render: () => element("div", [element(Chat), element(Chat)]) });
    app.mount(target);
    vue.unmount = () => app.unmount();
  }
};

const svelte = {
  mount(target) {
    const page = mountSvelte(Svelte, { target, props: { address: (step) => address("svelte", step), callbacks, shown } });
    svelte.go = page.go;
    svelte.unmount = () => unmount(page);
  }
};

window.pages = { react, vue, svelte };
