/* node bundle.mjs: prints the script of components.mjs, with all that it imports. */
import { readFile } from "node:fs/promises";
import { build } from "esbuild";
import { compile } from "svelte/compiler";

const components = {
  name: "svelte",
  setup({ onLoad }) {
    onLoad({ filter: /\.svelte$/ }, async ({ path }) => ({
      contents: compile(await readFile(path, "utf8"), { filename: path, generate: "client", dev: true }).js.code
    }));
  }
};

const { outputFiles } = await build({
  entryPoints: ["components.mjs"],
  bundle: true,
  write: false,
  format: "iife",
  conditions: ["browser", "development"],
  define: {
    "process.env.NODE_ENV": '"development"',
    __VUE_OPTIONS_API__: "false",
    __VUE_PROD_DEVTOOLS__: "false",
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false"
  },
  plugins: [components],
  logLevel: "warning"
});
process.stdout.write(outputFiles[0].text);
