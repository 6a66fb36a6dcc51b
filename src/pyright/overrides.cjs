// Gives Pyright's language server the Python version and platform that its command line takes.
//
// The language server has no setting for them, and a project's own configuration would win over what the interpreter
// says. On the command line they win over both. Loaded by `node --require`, only where a caller sets one of them.
'use strict';
const Module = require('module');

const { pythonVersion, pythonPlatform } = JSON.parse(process.env.PYRIGHTD_OVERRIDES);
/** Classes by name, as the bundle's modules export them; the modules' numbers change with every release. */
const found = {};

function notice(exports) {
    if (exports === null || typeof exports !== 'object') return;
    if (exports.PythonVersion?.fromString) found.PythonVersion ??= exports.PythonVersion;
    if (exports.AnalyzerService?.prototype?.setOptions && !found.AnalyzerService) {
        found.AnalyzerService = exports.AnalyzerService;
        override(found.AnalyzerService.prototype);
    }
}

function override(prototype) {
    const setOptions = prototype.setOptions;
    prototype.setOptions = function (options) {
        if (pythonVersion) {
            const version = found.PythonVersion?.fromString(pythonVersion);
            if (!version) fail(`"${pythonVersion}" is no Python version`);
            options.configSettings.pythonVersion = version;
        }
        if (pythonPlatform) options.configSettings.pythonPlatform = pythonPlatform;
        return setOptions.call(this, options);
    };
}

function fail(reason) {
    console.error(`The Python version or platform can't be set: ${reason}`);
    process.exit(1);
}

// The language server loads its two chunks with `require`; each is {ids, modules: {number: function}}.
const load = Module._load;
Module._load = function (...args) {
    const chunk = load.apply(this, args);
    if (chunk?.modules && chunk.ids && !chunk.noticed) {
        chunk.noticed = true;
        for (const [id, run] of Object.entries(chunk.modules)) {
            chunk.modules[id] = function (module, ...rest) {
                const result = run.call(this, module, ...rest);
                notice(module.exports);
                return result;
            };
        }
        // Both chunks are loaded before the first request; the entry point runs once they are.
        setImmediate(() => found.AnalyzerService || setTimeout(() => found.AnalyzerService || fail('another release'), 5000).unref());
    }
    return chunk;
};
