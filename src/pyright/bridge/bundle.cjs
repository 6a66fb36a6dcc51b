// Finds what Pyright's bundle exports, by name, as its modules run: their numbers change with every release.
'use strict';
const Module = require('node:module');

/**
 * The modules' exports, by one name that each exports.
 * @type {Map<string, any>}
 */
const found = new Map();
/** @type {Map<string, (exports: any) => void>} */
const awaited = new Map();

/**
 * Calls back once a module exports this name, before anybody has used it.
 * @param {string} name
 * @param {(exports: any) => void} [act]
 */
function whenExported(name, act = () => {}) {
    awaited.set(name, act);
}

/**
 * The exports that hold this name; it must have been awaited.
 * @param {string} name
 * @returns {any}
 */
function exportsWith(name) {
    const exports = found.get(name);
    if (exports === undefined) throw new Error(`this release of Pyright exports no ${name}`);
    return exports;
}

/** @param {any} exports */
function notice(exports) {
    if (exports === null || typeof exports !== 'object') return;
    for (const [name, act] of awaited) {
        if (found.has(name) || exports[name] === undefined) continue;
        found.set(name, exports);
        act(exports);
    }
}

/** Watches what is loaded from here on: the language server loads chunks, each `{ids, modules: {number: function}}`. */
function watch() {
    const loader = /** @type {any} */ (Module);
    const load = loader._load;
    const noticed = new WeakSet();
    loader._load = function (/** @type {any[]} */ ...args) {
        const chunk = load.apply(this, args);
        if (chunk?.modules && chunk.ids && !noticed.has(chunk)) {
            noticed.add(chunk);
            for (const [id, run] of Object.entries(chunk.modules)) {
                chunk.modules[id] = function (/** @type {any} */ module, /** @type {any[]} */ ...rest) {
                    const result = run.call(this, module, ...rest);
                    notice(module.exports);
                    return result;
                };
            }
        }
        return chunk;
    };
}

module.exports = { whenExported, exportsWith, watch };
