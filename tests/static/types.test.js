"use strict";

const path = require("node:path");

const typescript = require("typescript");

const {assert, test} = require("./world.js");

test("a page in TypeScript is told what is right and what is wrong", () => {
  const {flattenDiagnosticMessageText: text, createProgram, getPreEmitDiagnostics} = typescript;
  const program = createProgram([path.join(__dirname, "example.ts")], {
    strict: true,
    noEmit: true,
    lib: ["lib.es2015.d.ts"],
    types: [],
    target: typescript.ScriptTarget.ES2020,
    module: typescript.ModuleKind.ESNext,
    moduleResolution: typescript.ModuleResolutionKind.Bundler,
    allowUmdGlobalAccess: true
  });
  const found = getPreEmitDiagnostics(program).map(({file, start, messageText}) => {
    const line = file ? file.getLineAndCharacterOfPosition(start).line + 1 : "";
    return `${file?.fileName}:${line} ${text(messageText, " ")}`;
  });
  assert.deepEqual(found, []);
});
