// Makes another release of Pyright out of this one; loaded by Node before the bridge.
'use strict';
const Module = require('node:module');

/** Changes what modules export, as each has run. @param {(exports: any) => void} change */
function change(change) {
    const loader = /** @type {any} */ (Module);
    const load = loader._load;
    const changed = new WeakSet();
    loader._load = function (/** @type {any[]} */ ...args) {
        const chunk = load.apply(this, args);
        if (!chunk?.modules || !chunk.ids || changed.has(chunk)) return chunk;
        changed.add(chunk);
        for (const [id, run] of Object.entries(chunk.modules)) {
            chunk.modules[id] = function (/** @type {any} */ module, /** @type {any[]} */ ...rest) {
                const result = run.call(this, module, ...rest);
                if (module.exports !== null && typeof module.exports === 'object') change(module.exports);
                return result;
            };
        }
        return chunk;
    };
}

module.exports = { change };
