// Gives a caller's settings precedence over those of the project's own configuration.
//
// Where a project has a configuration, the language server heeds no other settings, and for the Python version and
// platform it has none at all. Loaded by `node --require`, only where a caller sets something.
'use strict';
const Module = require('module');

const { pythonVersion, pythonPlatform, hasVenv, extraPaths, stubPath } = JSON.parse(process.env.PYRIGHTD_OVERRIDES);
/** Classes by name, as the bundle's modules export them; the modules' numbers change with every release. */
const found = {};

function notice(exports) {
    if (exports === null || typeof exports !== 'object') return;
    if (exports.PythonVersion?.fromString) found.PythonVersion ??= exports.PythonVersion;
    if (exports.AnalyzerService?.prototype?._ensureDefaultOptions && !found.AnalyzerService) {
        found.AnalyzerService = exports.AnalyzerService;
        override(found.AnalyzerService.prototype);
    }
}

function override(prototype) {
    const ensureDefaultOptions = prototype._ensureDefaultOptions;
    // It runs once the configuration was read, and before what belongs to single folders inherits from it.
    prototype._ensureDefaultOptions = function (host, options, root, ...rest) {
        if (pythonVersion) {
            const version = found.PythonVersion?.fromString(pythonVersion);
            if (!version) fail(`"${pythonVersion}" is no Python version`);
            options.defaultPythonVersion = version;
        }
        if (pythonPlatform) options.defaultPythonPlatform = pythonPlatform;
        if (hasVenv) options.venvPath = options.venv = undefined;
        if (stubPath) options.stubPath = root.resolvePaths(stubPath);
        const known = options.defaultExtraPaths;
        if (known) {
            const named = extraPaths.map((path) => root.resolvePaths(path));
            options.defaultExtraPaths = [...named.filter((path) => !known.some((other) => other.key === path.key)), ...known];
        }
        return ensureDefaultOptions.call(this, host, options, root, ...rest);
    };
}

function fail(reason) {
    console.error(`A caller's settings can't be set: ${reason}`);
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
    }
    return chunk;
};

// The entry point loads all of Pyright before it returns. Types without these settings must not be told: another
// release, which has no such place for them, ends before it is ready.
setImmediate(() => found.AnalyzerService || fail('this release of Pyright has no place for them'));
