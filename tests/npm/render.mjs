/* node render.mjs: renders a component of each framework as a server does, and prints that. Nothing may connect. */
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { get } from "svelte/store";
import { derived as derived4, get as get4 } from "svelte4/store";
import { createSSRApp } from "vue";
import { renderToString as renderVue } from "vue/server-renderer";
import { useChannel } from "pushcompat/react";
import { channel } from "pushcompat/svelte";
import { useChannel as useInVue } from "pushcompat/vue";

globalThis.fetch = () => { throw new Error("a server has connected"); };

const React = ({ url }) => createElement("p", null, useChannel(url).state);
const Vue = (url) => createSSRApp({ setup: () => ({ status: useInVue(url) }), template: "<p>{{ status.state }}</p>" });
const store = (url) => channel(url);

const rendered = [];
for (const url of ["/channels/chat", null]) {
  rendered.push(renderToString(createElement(React, { url })), await renderVue(Vue(url)));
  rendered.push(get(store(url)).state, get4(derived4(store(url), ({ state }) => state)));
}
process.stdout.write(JSON.stringify(rendered));
