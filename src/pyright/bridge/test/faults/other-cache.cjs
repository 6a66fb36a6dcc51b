// A release whose evaluators keep types in maps of another kind.
'use strict';
const OwnMap = class extends Map {};
require('./release.cjs').change(({ Program }) => {
    if (!Program) return;
    const create = Program.prototype._createNewEvaluator;
    Program.prototype._createNewEvaluator = function () {
        const saved = globalThis.Map;
        globalThis.Map = /** @type {any} */ (OwnMap);
        try {
            return create.call(this);
        } finally {
            globalThis.Map = saved;
        }
    };
});
