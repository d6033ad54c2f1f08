/* What the library of ECMAScript 5.1 has, and a window that has nothing else: a browser of 2011. */
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const FILE = path.join(__dirname, "../../static/pushcompat.js");
const SOURCE = fs.readFileSync(FILE, "utf8");

const GLOBALS = words(`Object Function Array String Boolean Number Date RegExp Error EvalError RangeError ReferenceError
  SyntaxError TypeError URIError Math JSON NaN Infinity undefined eval parseInt parseFloat isNaN isFinite decodeURI
  decodeURIComponent encodeURI encodeURIComponent escape unescape`);

const MEMBERS = {
  "Object": words(`prototype length name getPrototypeOf getOwnPropertyDescriptor getOwnPropertyNames create
    defineProperty defineProperties seal freeze preventExtensions isSealed isFrozen isExtensible keys`),
  "Object.prototype": words(`constructor toString toLocaleString valueOf hasOwnProperty isPrototypeOf
    propertyIsEnumerable`),
  "Function.prototype": words("constructor length name arguments caller toString apply call bind"),
  "Array": words("prototype length name isArray"),
  "Array.prototype": words(`constructor length toString toLocaleString concat join pop push reverse shift slice sort
    splice unshift indexOf lastIndexOf every some forEach map filter reduce reduceRight`),
  "String": words("prototype length name fromCharCode"),
  "String.prototype": words(`constructor length toString valueOf charAt charCodeAt concat indexOf lastIndexOf
    localeCompare match replace search slice split substr substring toLowerCase toLocaleLowerCase toUpperCase
    toLocaleUpperCase trim`),
  "Number": words("prototype length name MAX_VALUE MIN_VALUE NaN NEGATIVE_INFINITY POSITIVE_INFINITY"),
  "Number.prototype": words(`constructor toString toLocaleString valueOf toFixed toExponential toPrecision`),
  "Math": words(`E LN10 LN2 LOG2E LOG10E PI SQRT1_2 SQRT2 abs acos asin atan atan2 ceil cos exp floor log max min pow
    random round sin sqrt tan`),
  "Date": words("prototype length name parse UTC now")
};

function words(text) {
  return text.split(/\s+/);
}

/** The objects of MEMBERS in a realm, and the names that came to them later. */
function later(realm) {
  return Object.entries(MEMBERS).map(([where, known]) => {
    const object = where.split(".").reduce((from, name) => from[name], realm);
    return {object, names: Object.getOwnPropertyNames(object).filter((name) => !known.includes(name))};
  });
}

/** The names that the global object got later. */
function laterGlobals(realm) {
  return Object.getOwnPropertyNames(realm).filter((name) => !GLOBALS.includes(name));
}

function strip(object, names) {
  names.forEach((name) => Reflect.deleteProperty(object, name)); // constants of Number stay
}

/** A tab's window in a realm of its own, with the client loaded by a script tag. */
function windowOf({env}, more, source = SOURCE) {
  const context = vm.createContext(), window = vm.runInContext("this", context);
  later(window).forEach(({object, names}) => strip(object, names));
  strip(window, laterGlobals(window));
  Object.assign(window, {
    self: window,
    WebSocket: env.WebSocket,
    EventSource: env.EventSource,
    XMLHttpRequest: env.XMLHttpRequest,
    setTimeout: env.setTimeout,
    clearTimeout: env.clearTimeout,
    localStorage: env.storage,
    location: env.location,
    document: env.document,
    addEventListener: (...listener) => env.page.addEventListener(...listener),
    removeEventListener: (...listener) => env.page.removeEventListener(...listener),
    ...more
  });
  vm.runInContext(source, context, {filename: FILE});
  return window;
}

module.exports = {FILE, SOURCE, later, laterGlobals, windowOf};
