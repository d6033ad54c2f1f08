import { svelte } from "@sveltejs/vite-plugin-svelte";
import vue from "@vitejs/plugin-vue";

export default {
  plugins: [vue(), svelte()],
  esbuild: { jsx: "automatic" },
  build: { rollupOptions: { input: ["react.html", "query.html", "vue.html", "svelte.html"] } },
};
