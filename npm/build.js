/* Builds the npm package from static/pushcompat.js and the files beside this one: node build.js VERSION FOLDER
 *
 *     pushcompat.js           static/pushcompat.js as it is: CommonJS, AMD or a script tag
 *     pushcompat.mjs          the same as an ES module that sets no global
 *     pushcompat.min.js       each of them minified; ECMAScript 5 still, but for the module's exports
 *     pushcompat.min.mjs
 *     follow, react …         each as an ES module (.mjs, as written here) and as CommonJS (.js)
 *     *.d.mts, *.d.ts         the types of each of these
 */
"use strict";

const fs = require("node:fs");
const path = require("node:path");

const uglify = require("uglify-js");

const STATIC = path.join(__dirname, "..", "static");
const ENTRIES = ["follow", "react", "vue", "svelte"]; // the first is what the others share
const NAMES = ["subscribe", "UpdateCheckSocket"];

/** Replaces what must be there. */
function replace(text, pattern, by) {
  if (!pattern.test(text)) throw new Error(`nothing matches ${pattern}`);
  return text.replace(pattern, by);
}

/** Without the wrapper that finds out who loads it. */
function toModule(source) {
  const body = replace(source, /^\(function \(root, factory\) \{[^]*?\n\}\(.*?, (?=function \(root\) \{\n)/m, "const api = (");
  const root = 'typeof self !== "undefined" ? self : globalThis';
  const end = `}(${root}));\n\nexport const ${NAMES.map((name) => `${name} = api.${name}`).join(", ")};\nexport default api;\n`;
  return replace(body, /\}\)\);\s*$/, end);
}

function toCommonJs(module) {
  const names = [...module.matchAll(/^export \w+ (\w+)/gm)].map(([, name]) => name);
  const body = module.replace(/^export /gm, "").replace(/^import (.*?) from "(.*?)";$/gm, (_, imported, from) =>
    `const ${imported} = require("${from.replace(/mjs$/, "js")}");`);
  return `"use strict";\n\n${body}\nmodule.exports = { ${names.join(", ")} };\n`;
}

/** Private names start with an underscore. With `module` the result would not be ECMAScript 5. */
function minify(source, isModule) {
  const comment = /^\/\*![^]*?license\./.exec(source)[0] + " */\n";
  const options = {module: isModule, compress: true, mangle: {properties: {regex: /^_/}}};
  const {code, error} = uglify.minify(source, options);
  if (error) throw error;
  return comment + code + "\n";
}

/** What is published: without what is for building it. */
function manifest(version) {
  const {private: _, devDependencies, ...rest} = JSON.parse(fs.readFileSync(path.join(__dirname, "package.json"), "utf8"));
  return JSON.stringify({...rest, version}, null, 2) + "\n";
}

function build(version, folder) {
  const read = (...names) => fs.readFileSync(path.join(...names), "utf8");
  const write = (name, text) => fs.writeFileSync(path.join(folder, name), text);
  const source = read(STATIC, "pushcompat.js"), module = toModule(source);
  fs.rmSync(folder, {recursive: true, force: true});
  fs.mkdirSync(folder, {recursive: true});
  write("package.json", manifest(version));
  write("README.md", read(__dirname, "README.md"));
  write("LICENSE", read(__dirname, "..", "LICENSE"));
  write("pushcompat.js", source);
  write("pushcompat.mjs", module);
  write("pushcompat.min.js", minify(source, false));
  write("pushcompat.min.mjs", minify(module, true));
  for (const types of ["pushcompat.d.ts", "pushcompat.d.mts"]) write(types, read(STATIC, types));
  for (const name of ENTRIES) {
    const entry = read(__dirname, `${name}.mjs`), types = read(__dirname, `${name}.d.mts`);
    write(`${name}.mjs`, entry);
    write(`${name}.js`, toCommonJs(entry));
    write(`${name}.d.mts`, types);
    write(`${name}.d.ts`, types.replace(/pushcompat\.mjs/g, "pushcompat.js"));
  }
}

build(...process.argv.slice(2));
